"""From cell folders to rows: seeds averaged, intervals over recordings, comparisons with the reference, corrected."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from avemo import metrics
from avemo.evaluation import postprocess
from avemo.metrics import significance
from avemo.sweep import plan


@dataclasses.dataclass(frozen=True)
class Interval:
    """A seed-mean score: value, standard deviation over seeds, 95 % bootstrap interval over recordings."""

    value: float
    deviation: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
      name: its label; candidate: the search candidate chosen on dev, "" without a search.
      seeds: finished seeds; wanted: seeds asked for; error: why cells failed, "" where none did.
      split: the split of all scores below; metric: name of the main score.
      chosen: whether the checkpoints were chosen among several by their dev score.
      main: the main score: CCC over the concatenation, or UAR for emotions.
      second: the other convention: mean of the recordings' CCCs, or accuracy.
      dimensions: further seed-mean values by name (CCC of each dimension).
      comparison: with the reference row on the same recordings and seeds; None for the reference itself.
      p_holm: its p-value, corrected for the number of rows compared.
      audio, visual: seed-mean main score of the same checkpoints with the other modality masked.
      processed: main score after post-processing; None for emotions. kept: how often each step was kept.
      processed_second: the other convention after post-processing.
      parameters, flops, step_seconds: cost; flops are of the forward pass of one frame.
      recordings: main score of each recording, seed mean, by name.
      folders: run folders of the seeds; command: makes the first of them alone.
    """

    name: str
    candidate: str = ""
    seeds: int = 0
    wanted: int = 0
    error: str = ""
    split: str = ""
    metric: str = ""
    chosen: bool = False
    main: Interval | None = None
    second: Interval | None = None
    dimensions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    comparison: significance.Comparison | None = None
    p_holm: float | None = None
    audio: float | None = None
    visual: float | None = None
    processed: float | None = None
    processed_second: float | None = None
    kept: Mapping[str, int] = dataclasses.field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None
    step_seconds: float | None = None
    recordings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    folders: Sequence[str] = ()
    command: str = ""
    reference: bool = False


@dataclasses.dataclass(frozen=True)
class _Group:
    """The finished seeds of a setting's chosen candidate."""

    cells: list[plan.Cell]
    results: list[dict[str, Any]]
    predictions: list[dict[str, np.ndarray]]


def rows(sweep: plan.Sweep, folder: epath.Path) -> list[Row]:
    """The rows of a sweep, in its order, from the cells that are finished in `folder`."""
    settings = plan.cells(sweep)
    reference = sweep.reference or settings[0][0][0].setting
    split = _split(settings, folder)
    groups = {c[0][0].setting: _chosen(c, folder, split) for c in settings}
    scores = {name: _scores(group) for name, group in groups.items() if group.cells}
    out = []
    for candidates in settings:
        name = candidates[0][0].setting
        row = _row(candidates, groups[name], scores.get(name), folder, split)
        if row.seeds and name != reference and reference in scores:
            comparison = _compare(groups[name], scores[name][0], groups[reference], scores[reference][0])
            row = dataclasses.replace(row, comparison=comparison)
        out.append(dataclasses.replace(row, reference=name == reference))
    compared = [i for i, row in enumerate(out) if row.comparison]
    corrected = significance.holm([out[i].comparison.p for i in compared])
    for i, p in zip(compared, corrected, strict=True):
        out[i] = dataclasses.replace(out[i], p_holm=float(p))
    return out


def _read(path: epath.Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _split(settings: list, folder: epath.Path) -> str:
    """`test` where every finished cell has scores on it, else `dev`: RECOLA's test labels are not public."""
    found = [
        _read(folder / cell.folder / "result.json") for candidates in settings for seeds in candidates for cell in seeds
    ]
    found = [result for result in found if result]
    return "test" if found and all("test" in result["metrics"] for result in found) else "dev"


def _chosen(candidates: Sequence[Sequence[plan.Cell]], folder: epath.Path, split: str) -> _Group:
    """The candidate with the best mean dev score among those with the most finished seeds."""
    best: tuple[tuple[int, float], list, list] = ((-1, -np.inf), [], [])
    for seeds in candidates:
        finished = [(c, r) for c in seeds if (r := _read(folder / c.folder / "result.json"))]
        dev = [_main(r["metrics"].get("dev", r["metrics"][split])) for _, r in finished]
        rank = (len(finished), float(np.mean(dev)) if dev else -np.inf)
        if rank > best[0]:
            best = (rank, [c for c, _ in finished], [r for _, r in finished])
    _, cells, results = best
    return _Group(cells, results, [postprocess.read_predictions(folder / c.folder, split) for c in cells])


def _main(values: Mapping[str, float]) -> float:
    return values["ccc_mean"] if "ccc_mean" in values else values["uar"]


def _scores(group: _Group) -> tuple[significance.Score, significance.Score]:
    """The main score and the other convention, from the predictions of all seeds."""
    if "prediction" in group.predictions[0]:
        moments = np.stack([_moments(p) for p in group.predictions])
        return significance.ccc_concatenated(moments), significance.ccc_per_recording(moments)
    labels = group.predictions[0]["label"]
    probability = np.stack([p["probability"] for p in group.predictions])
    predicted = probability.argmax(-1)
    return (
        significance.uar(labels, predicted, probability.shape[-1]),
        significance.accuracy(labels, predicted),
    )


def _moments(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = postprocess.split_recordings(predictions)
    return metrics.recording_sums(parts["prediction"], parts["target"], parts["mask"])


def _units(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Names of what is resampled: recordings, or the faces of an expression network's predictions by number."""
    return predictions["recording"] if "recording" in predictions else np.arange(len(predictions["label"]))


def _interval(score: significance.Score) -> Interval:
    seeds = score.seeds()
    deviation = float(seeds.std(ddof=1)) if len(seeds) > 1 else float("nan")
    return Interval(score.mean(), deviation, *significance.bootstrap(score))


def _compare(
    group: _Group, score: significance.Score, other: _Group, reference: significance.Score
) -> significance.Comparison | None:
    """Over the seeds that both have; None where there is none, or the recordings differ."""
    mine, theirs = ([c.seed for c in g.cells] for g in (group, other))
    common = sorted(set(mine) & set(theirs))
    if not common or list(_units(group.predictions[0])) != list(_units(other.predictions[0])):
        return None

    def keep(score: significance.Score, seeds: list[int]) -> significance.Score:
        return significance.Score(score.evidence[[seeds.index(s) for s in common]], score.value)

    return significance.compare(keep(score, mine), keep(reference, theirs))


def _row(
    candidates: Sequence[Sequence[plan.Cell]],
    group: _Group,
    scores: tuple[significance.Score, significance.Score] | None,
    folder: epath.Path,
    split: str,
) -> Row:
    cells = [cell for seeds in candidates for cell in seeds]
    first = group.cells[0] if group.cells else cells[0]
    errors = [
        _read(folder / c.folder / "error.json") for c in cells if not (folder / c.folder / "result.json").exists()
    ]
    errors = [e["error"] for e in errors if e]
    row = Row(
        name=first.setting,
        candidate=first.candidate,
        seeds=len(group.cells),
        wanted=len(candidates[0]),
        error=errors[0] if errors else "",
        split=split,
        command=first.command(folder),
    )
    if scores is None:
        return row
    results, config = group.results, first.config()
    scored = [r["metrics"][split] for r in results]
    traces = "prediction" in group.predictions[0]
    alone = {
        m: float(np.mean([_main(r["modalities"][m][split]) for r in results]))
        for m in ("audio", "visual")
        if all("modalities" in r for r in results)
    }
    names = ("ccc_valence", "ccc_arousal") if traces else ("macro_f1",)
    if traces:
        each = metrics.ccc_of_sums(np.stack([_moments(p) for p in group.predictions])).mean((0, 2))
    else:
        each = np.mean([p["probability"].argmax(-1) == p["label"] for p in group.predictions], 0)
    return dataclasses.replace(
        row,
        metric="CCC" if traces else "UAR",
        chosen=config.eval_every < config.steps,
        main=_interval(scores[0]),
        second=_interval(scores[1]),
        dimensions={n: float(np.mean([m[n] for m in scored])) for n in names if n in scored[0]},
        audio=alone.get("audio"),
        visual=alone.get("visual"),
        parameters=results[0]["parameters"],
        flops=results[0].get("flops"),
        step_seconds=float(np.mean([r["step_seconds"] for r in results])) if "step_seconds" in results[0] else None,
        recordings=dict(zip(map(str, _units(group.predictions[0])), map(float, each), strict=True)),
        folders=[c.folder for c in group.cells],
        **(_processed(group, folder, split) if traces else {}),
    )


def _processed(group: _Group, folder: epath.Path, split: str) -> dict[str, Any]:
    """Post-processing fitted on each seed's dev predictions, scored on `split`; seed means."""
    done, kept = [], {}
    for cell in group.cells:
        path = folder / cell.folder / "postprocess.json"
        # Fitted once a cell: it is a second's work, and tables are written often.
        out = _read(path) or postprocess.run(folder / cell.folder)
        done.append(out["metrics"][split]["after"])
        for steps in out["steps"].values():
            for name in steps["kept"]:
                kept[name] = kept.get(name, 0) + 1
    return {
        "processed": float(np.mean([d["ccc_concatenated"] for d in done])),
        "processed_second": float(np.mean([d["ccc_recording"] for d in done])),
        "kept": kept,
    }
