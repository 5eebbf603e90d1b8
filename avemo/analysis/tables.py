"""Scores of a run's predictions, as pandas tables."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from avemo import metrics
from avemo.analysis.inputs import subjects
from avemo.analysis.run import AnalysisRun
from avemo.evaluation.compare import compare as compare_runs
from avemo.runs.reader import RecordingTraces
from avemo.tasks.audiovisual_data import undo_delay
from media.errors import UserError


def _rated(run: AnalysisRun, split: str | None) -> list[RecordingTraces]:
    found = [trace for trace in run.traces(run.split(split)) if trace.rated.any()]
    if not found:
        raise UserError(
            f"{run.folder} has no rated traces of {run.split(split)!r}: it predicts emotions, or is not a fusion run."
        )
    return found


def recordings(run: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """Scores by recording, worst first: CCC and RMSE per dimension, shares of frames with a face and with sound.

    `speakers` gives the same by speaker.
    """
    return _groups({trace.recording: [trace] for trace in _rated(run, split)}, "recording")


def speakers(run: AnalysisRun, split: str | None = None, speaker: Callable[[str], str] | None = None) -> pd.DataFrame:
    """Scores by speaker, worst first; the frames of a speaker's recordings are pooled.

    Args:
      run: a run of valence and arousal, or one of emotions whose predictions name their recordings.
      split: by default dev.
      speaker: maps the name of a recording to its speaker, or to any other group (sex, language); by default the run's
        own features or clips say who speaks.

    Returns:
      The table of `recordings` with the number of `recordings`; for emotions accuracy, UAR and that number.

    Raises:
      UserError: neither the data nor `speaker` says who speaks.
    """
    try:
        known = subjects(run, split) if speaker is None else {}
    except UserError as error:
        raise UserError(f"{error} Or pass `speaker`, a function of a recording's name.") from error
    who = speaker or (lambda name: known.get(name, "?"))
    classes = run.classes(run.split(split))
    if classes is None:
        groups: dict[str, list[RecordingTraces]] = {}
        for trace in _rated(run, split):
            groups.setdefault(who(trace.recording), []).append(trace)
        return _groups(groups, "speaker")
    label, probability, recording = classes
    names = np.array([who(str(name)) for name in recording])
    rows = {}
    for name in np.unique(names):
        found = metrics.class_scores(label[names == name], probability[names == name])
        rows[name] = {"accuracy": found["accuracy"], "uar": found["uar"], "recordings": int((names == name).sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("speaker").sort_values("accuracy")


def _groups(groups: Mapping[str, Sequence[RecordingTraces]], kind: str) -> pd.DataFrame:
    rows = {}
    for name, traces in groups.items():
        moments = _pooled((t.prediction, t) for t in traces)
        ccc, rmse = metrics.ccc(moments), metrics.rmse(moments)
        rows[name] = {
            **{f"ccc_{dimension}": float(ccc[k]) for k, dimension in enumerate(metrics.DIMENSIONS)},
            **{f"rmse_{dimension}": float(rmse[k]) for k, dimension in enumerate(metrics.DIMENSIONS)},
            "face": float(np.concatenate([t.visual_mask for t in traces]).mean()),
            "sound": float(np.concatenate([t.audio_mask for t in traces]).mean()),
            "seconds": float(sum(t.time[-1] - t.time[0] for t in traces)),
            **({} if kind == "recording" else {"recordings": len(traces)}),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(kind).sort_values("ccc_valence")


def _pooled(predictions: Iterable[tuple[np.ndarray, RecordingTraces]]) -> np.ndarray:
    """Centred moments `[2, 6]` of predictions against the gold of their recordings, over all rated frames."""
    return functools.reduce(metrics.merge, (metrics.trace_moments(x, t.target, t.rated) for x, t in predictions))


def worst_windows(run: AnalysisRun, split: str | None = None, seconds: float = 4.0, count: int = 5) -> pd.DataFrame:
    """Where a run fails: the stretches with the largest error (RMS over both dimensions), without overlap."""
    found = []
    for trace in _rated(run, split):
        error = ((trace.prediction - trace.target) ** 2).mean(-1)
        step = float(np.median(np.diff(trace.time)))
        width = max(1, round(seconds / step))
        error = np.where(np.isfinite(error), error, 0.0)
        mean = np.convolve(error, np.ones(width) / width, mode="valid")
        while len(mean) and mean.max() > 0:
            i = int(mean.argmax())
            last = min(i + width, len(trace.time)) - 1
            found.append(
                {
                    "recording": trace.recording,
                    "begin": float(trace.time[i]),
                    "end": float(trace.time[last]) + step,
                    "error": float(np.sqrt(mean[i])),
                    "face": float(trace.visual_mask[i : last + 1].mean()),
                    "sound": float(trace.audio_mask[i : last + 1].mean()),
                }
            )
            mean[max(0, i - width + 1) : i + width] = 0
    return pd.DataFrame(found).sort_values("error", ascending=False, ignore_index=True).head(count)


def delay_curve(
    run: AnalysisRun, split: str | None = None, delays: Sequence[float] = tuple(np.arange(-2, 4.01, 0.25))
) -> pd.DataFrame:
    """CCC against a further delay (s) of the predictions; a peak away from 0 means the run's own delay is off.

    The index is the delay; a negative one moves the predictions earlier. The columns are valence and arousal, over all
    frames.
    """
    traces = _rated(run, split)
    rows = {}
    for delay in delays:
        ccc = metrics.ccc(_pooled((_delayed(trace, delay), trace) for trace in traces))
        rows[float(delay)] = dict(zip(metrics.DIMENSIONS, ccc.tolist(), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("delay")


def _delayed(trace: RecordingTraces, delay: float) -> np.ndarray:
    fps = 1 / float(np.median(np.diff(trace.time)))
    if delay < 0:
        return undo_delay(trace.prediction[::-1], -delay, fps)[::-1]
    return undo_delay(trace.prediction, delay, fps)


def labelled(run: AnalysisRun, split: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels `[N]`, probabilities `[N, C]` and class names of the labelled items of a split.

    Raises:
      UserError: the run predicts traces, or no item is labelled.
    """
    found = run.classes(run.split(split))
    if found is None:
        raise UserError(f"{run.folder} has no labelled classes of {run.split(split)!r}: it predicts traces.")
    label, probability, _ = found
    classes = probability.shape[1]
    names = run.class_names if len(run.class_names) == classes else [str(i) for i in range(classes)]
    return label, probability, names


def confusion(run: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """Counts of true (rows) against predicted classes (columns)."""
    label, probability, names = labelled(run, split)
    counts = metrics.confusion(label, probability.argmax(-1), len(names))
    return pd.DataFrame(counts.astype(int), pd.Index(names, name="true"), pd.Index(names, name="predicted"))


def calibration(run: AnalysisRun, split: str | None = None, bins: int = 10) -> pd.DataFrame:
    """Confidence against accuracy by bin of confidence, without empty bins; columns confidence, accuracy, count."""
    label, probability, _ = labelled(run, split)
    count, confidence, correct = metrics.calibration(label, probability, bins).T
    filled = np.flatnonzero(count)
    means = {"confidence": (confidence / np.maximum(count, 1)), "accuracy": (correct / np.maximum(count, 1))}
    table = pd.DataFrame({**means, "count": count.astype(int)})
    return table.iloc[filled].rename_axis("bin")


def compare(*runs: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """`avemo.evaluation.compare` as a table: scores with intervals, and paired differences from the first run."""
    split, scores = compare_runs([run.folder for run in runs], split)
    table = pd.DataFrame([dataclasses.asdict(score) for score in scores]).assign(split=split)
    return table.set_index(["metric", "run"])
