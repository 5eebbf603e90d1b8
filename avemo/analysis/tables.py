"""Numbers about a run's predictions, as pandas tables."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from avemo import metrics
from avemo.analysis.run import AnalysisRun, subjects
from avemo.evaluation import compare as comparison
from avemo.runs.reader import RecordingTraces
from avemo.tasks.audiovisual_data import undo_delay
from media.errors import UserError


def _rated(run: AnalysisRun, split: str | None) -> list[RecordingTraces]:
    found = [t for t in run.traces(run.split(split)) if np.isfinite(t.target).all(-1).any()]
    if not found:
        raise UserError(
            f"{run.folder} has no rated traces of {run.split(split)!r}: it predicts emotions, or is no fusion."
        )
    return found


def recordings(run: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """Scores by recording, the worst first: CCC and RMSE a dimension, share of frames with a face and with sound.

    `speakers` is the same by speaker.
    """
    return _groups({trace.recording: [trace] for trace in _rated(run, split)}, "recording")


def speakers(run: AnalysisRun, split: str | None = None, speaker: Callable[[str], str] | None = None) -> pd.DataFrame:
    """Scores by speaker, the worst first; frames of a speaker's recordings are pooled.

    Args:
      run: a run of valence and arousal, or one of emotions whose predictions name their recordings.
      split: by default dev.
      speaker: who speaks in a recording, from its name; by default as the run's own features or clips say, so that any
        other grouping (by sex, by language) is one function away.

    Returns:
      As `recordings` with the number of `recordings`; for emotions accuracy, uar and their number.

    Raises:
      UserError: neither the data nor `speaker` says who speaks.
    """
    known = subjects(run, split) if speaker is None else {}
    who = speaker or (lambda name: known.get(name, "?"))
    labelled = run.classes(run.split(split))
    if labelled is None:
        groups: dict[str, list[RecordingTraces]] = {}
        for trace in _rated(run, split):
            groups.setdefault(who(trace.recording), []).append(trace)
        return _groups(groups, "speaker")
    label, probability, recording = labelled
    names = np.array([who(str(name)) for name in recording])
    rows = {}
    for name in np.unique(names):
        found = metrics.class_scores(label[names == name], probability[names == name])
        rows[name] = {"accuracy": found["accuracy"], "uar": found["uar"], "recordings": int((names == name).sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("speaker").sort_values("accuracy")


def _groups(groups: Mapping[str, Sequence[RecordingTraces]], kind: str) -> pd.DataFrame:
    rows = {}
    for name, traces in groups.items():
        state = None
        for t in traces:
            part = metrics.trace_moments(t.prediction, t.target, np.isfinite(t.target).all(-1))
            state = part if state is None else metrics.merge(state, part)
        ccc, rmse = metrics.ccc(state), metrics.rmse(state)
        rows[name] = {
            **{f"ccc_{dimension}": float(ccc[k]) for k, dimension in enumerate(metrics.DIMENSIONS)},
            **{f"rmse_{dimension}": float(rmse[k]) for k, dimension in enumerate(metrics.DIMENSIONS)},
            "face": float(np.concatenate([t.visual_mask for t in traces]).mean()),
            "sound": float(np.concatenate([t.audio_mask for t in traces]).mean()),
            "seconds": float(sum(t.time[-1] - t.time[0] for t in traces)),
            **({} if kind == "recording" else {"recordings": len(traces)}),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(kind).sort_values("ccc_valence")


def worst_windows(run: AnalysisRun, split: str | None = None, seconds: float = 4.0, count: int = 5) -> pd.DataFrame:
    """Where a run fails: stretches with the largest error (root mean square over both dimensions), none overlapping."""
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
    """CCC by a further delay (s) of the predictions: a peak away from 0 says that the run's own delay is off.

    Columns valence and arousal (over all frames), index the delay; negative: predictions moved earlier.
    """
    rows = {}
    traces = _rated(run, split)
    for delay in delays:
        total = None
        for trace in traces:
            fps = 1 / float(np.median(np.diff(trace.time)))
            moved = undo_delay(trace.prediction, abs(delay), fps)
            if delay < 0:
                moved = undo_delay(trace.prediction[::-1], -delay, fps)[::-1]
            state = metrics.trace_moments(moved, trace.target, np.isfinite(trace.target).all(-1))
            total = state if total is None else metrics.merge(total, state)
        rows[float(delay)] = dict(zip(metrics.DIMENSIONS, metrics.ccc(total).tolist(), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("delay")


def _classes(run: AnalysisRun, split: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    found = run.classes(run.split(split))
    if found is None:
        raise UserError(f"{run.folder} has no labelled classes of {run.split(split)!r}: it predicts traces.")
    label, probability, _ = found
    names = run.class_names
    return (
        label,
        probability,
        names if len(names) == probability.shape[1] else [str(i) for i in range(probability.shape[1])],
    )


def confusion(run: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """Counts of true (rows) against predicted classes (columns)."""
    label, probability, names = _classes(run, split)
    counts = metrics.confusion(label, probability.argmax(-1), len(names))
    return pd.DataFrame(counts.astype(int), pd.Index(names, name="true"), pd.Index(names, name="predicted"))


def calibration(run: AnalysisRun, split: str | None = None, bins: int = 10) -> pd.DataFrame:
    """Confidence against accuracy in bins of confidence; columns confidence, accuracy, count."""
    label, probability, _ = _classes(run, split)
    confidence, right = probability.max(-1), probability.argmax(-1) == label
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": number, "confidence": confidence, "accuracy": right.astype(float), "count": 1})
    return table.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "count": "sum"})


def compare(*runs: AnalysisRun, split: str | None = None) -> pd.DataFrame:
    """`avemo.evaluation.compare` as a table: scores with intervals, paired differences from the first run."""
    split, rows = comparison.compare([run.folder for run in runs], split)
    table = pd.DataFrame([row.__dict__ for row in rows]).assign(split=split)
    return table.set_index(["metric", "run"])
