"""Cross-validation: the folds of a setting, pooled to one prediction of every recording.

Every recording is predicted by networks that learned from other folds. What is chosen is chosen on dev parts, which are
cut out of the folds that a network learns from: the checkpoint by each network; the candidate and the post-processing
of a fold by the dev parts of its networks together. The networks of a fold that differ in their dev part are averaged.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from avemo import metrics
from avemo.evaluation import postprocess
from avemo.sweep import finished
from avemo.sweep.finished import FinishedSeeds, Postprocessed
from avemo.sweep.plan import Cell, Sweep

Recordings = dict[str, dict[str, np.ndarray]]  # by name: the arrays of one recording
_SAID = ("prediction", "probability", "gates")  # what networks say, and are averaged


@dataclasses.dataclass(frozen=True)
class _Fold:
    """One fold of one candidate and seed, its dev parts averaged.

    Attributes:
      cells: the cells, one per dev part.
      result: the `result.json` of the first.
      dev, test: the recordings; dev holds each part's own.
      absent: the recordings of test, by kind and stream, as predicted with streams masked; empty if they were not.
    """

    cells: Sequence[Cell]
    result: Mapping[str, Any]
    dev: Recordings
    test: Recordings
    absent: Mapping[tuple[str, str], Recordings]


def choose(sweep: Sweep, candidates: Sequence[Sequence[Cell]], folder: epath.Path) -> FinishedSeeds | None:
    """The out-of-fold predictions of the seeds whose folds are all finished; None if there is none.

    For each fold, that candidate counts which scores best on the dev parts, by the mean over seeds, or the average of
    the best `sweep.average`; with `sweep.per_dimension` each dimension has its own.
    """
    opened = [_open(cells, folder) for cells in candidates]
    seeds = sorted(set.intersection(*({seed for seed, _ in folds} for folds in opened)))
    numbers = sorted({cell.fold for cell in candidates[0]}, key=lambda fold: int(fold.partition("/")[0]))
    seeds = [seed for seed in seeds if all((seed, fold) in folds for folds in opened for fold in numbers)]
    if not seeds:
        return None
    pooled: list[Recordings] = [{} for _ in seeds]
    every = [fold.absent for folds in opened for fold in folds.values()]
    absent: list[dict[tuple[str, str], Recordings]] = [
        {masked: {} for masked in every[0] if all(masked in one for one in every)} for _ in seeds
    ]
    processed: list[Recordings] = [{} for _ in seeds]
    kept, named = dict[str, int](), []
    for fold in numbers:
        tried = [[folds[seed, fold] for seed in seeds] for folds in opened]
        chosen = _best(sweep, tried)
        named += [tried[number][0].cells[0].candidate for numbers in chosen for number in numbers]
        each_seed = [[t[s] for t in tried] for s in range(len(seeds))]
        dev = [_columns([fold.dev for fold in folds], chosen) for folds in each_seed]
        test = [_columns([fold.test for fold in folds], chosen) for folds in each_seed]
        for seed, recordings in enumerate(test):
            pooled[seed] |= recordings
            for masked, said in absent[seed].items():
                said |= _columns([fold.absent[masked] for fold in each_seed[seed]], chosen)
        if sweep.postprocess and dev[0] and "prediction" in next(iter(dev[0].values())):
            for seed, (learned, recordings) in enumerate(zip(dev, test, strict=True)):
                after, names = _processed(learned, recordings)
                processed[seed] |= after
                kept = {name: kept.get(name, 0) + names.count(name) for name in {**kept, **dict.fromkeys(names)}}
    first = [opened[0][seed, numbers[0]] for seed in seeds]
    return FinishedSeeds(
        cells=[fold.cells[0] for fold in first],
        results=[_result(*of_seed) for of_seed in zip((fold.result for fold in first), pooled, absent, strict=True)],
        predictions=[_whole(recordings) for recordings in pooled],
        split="test",
        folds=len(numbers),
        candidate=_label(named),
        processed=_scores(processed, kept) if processed[0] else None,
    )


_PARTS = ("dev", "test")
_ABSENT = ("modalities", "without")


def _label(named: Sequence[str]) -> str:
    counts = {name: named.count(name) for name in dict.fromkeys(named)}
    if len(counts) == 1:
        return named[0]
    return ", ".join(f"{name} {times}/{len(named)}" for name, times in counts.items())


def _open(cells: Sequence[Cell], folder: epath.Path) -> dict[tuple[int, str], _Fold]:
    """The folds all of whose cells are finished and scored on test, by seed and fold."""
    together: dict[tuple[int, str], list[Cell]] = {}
    for cell in cells:
        together.setdefault((cell.seed, cell.fold), []).append(cell)
    out = {}
    for key, parts in together.items():
        results = [result for cell in parts if (result := finished.read_result(folder, cell))]
        if len(results) < len(parts) or not all("test" in result["metrics"] for result in results):
            continue
        read = [
            {name: _recordings(folder / cell.folder, name) for name in _PARTS if name in result["metrics"]}
            for cell, result in zip(parts, results, strict=True)
        ]
        dev: Recordings = {}
        for one in read:
            dev |= one.get("dev", {})
        masked = [(kind, stream) for kind in _ABSENT for stream in results[0].get(kind, ())]
        absent = {
            key: _mean([_recordings(folder / cell.folder, "/".join((*key, "test"))) for cell in parts])
            for key in masked
            if all((folder / cell.folder / "predictions" / "/".join(key)).exists() for cell in parts)
        }
        out[key] = _Fold(parts, results[0], dev, _mean([one["test"] for one in read]), absent)
    return out


def _recordings(workdir: epath.Path, split: str) -> Recordings:
    """What a cell predicted of a split, or of `KIND/STREAM/SPLIT`."""
    predictions = postprocess.read_predictions(workdir, split)
    names = [str(name) for name in predictions["recording"]]
    if "length" not in predictions:
        return {n: {k: v[i] for k, v in predictions.items() if k != "recording"} for i, n in enumerate(names)}
    cuts, total = np.cumsum(predictions["length"])[:-1], int(predictions["length"].sum())
    timed = {k: np.split(v, cuts) for k, v in predictions.items() if v.ndim and len(v) == total and k != "recording"}
    return {name: {k: v[i] for k, v in timed.items()} for i, name in enumerate(names)}


def _mean(parts: Sequence[Recordings]) -> Recordings:
    """What several networks say of the same recordings, averaged."""
    first, *_ = parts
    return {
        name: {k: np.mean([p[name][k] for p in parts], 0) if k in _SAID else v for k, v in arrays.items()}
        for name, arrays in first.items()
    }


def _best(sweep: Sweep, tried: Sequence[Sequence[_Fold]]) -> list[list[int]]:
    """The numbers of the best candidates on dev: of each dimension, or for all together."""
    if len(tried) == 1:
        return [[0]]
    scores = np.mean([[_dimensions(fold.dev) for fold in seeds] for seeds in tried], 1)  # [candidates, dimensions]
    ranked = np.argsort(-(scores if sweep.per_dimension else scores.mean(1, keepdims=True)), 0, kind="stable")
    return ranked[: max(1, sweep.average)].T.tolist()


def _dimensions(recordings: Recordings) -> np.ndarray:
    """The CCC of each dimension over all frames, or UAR."""
    whole = _whole(recordings)
    if "prediction" not in whole:
        return np.array([metrics.class_scores(whole["label"], whole["probability"])["uar"]])
    return metrics.ccc_of_sums(_sums(recordings).sum(0))


def _sums(recordings: Recordings) -> np.ndarray:
    each = recordings.values()
    return metrics.recording_sums(*([r[key] for r in each] for key in ("prediction", "target", "mask")))


def _columns(tried: Sequence[Recordings], chosen: Sequence[Sequence[int]]) -> Recordings:
    """The recordings of the chosen candidates, averaged; or of those for each dimension."""
    found = [_mean([tried[number] for number in numbers]) for numbers in chosen]
    if len(found) == 1:
        return found[0]
    joined: Recordings = {}
    for name, arrays in found[0].items():
        prediction = np.stack([one[name]["prediction"][:, k] for k, one in enumerate(found)], -1)
        joined[name] = {**{k: v for k, v in arrays.items() if k != "gates"}, "prediction": prediction}
    return joined


def _whole(recordings: Recordings) -> dict[str, np.ndarray]:
    """The predictions of all recordings, sorted by name, as a run saves those of a split."""
    names = sorted(recordings)
    each = [recordings[name] for name in names]
    if "prediction" not in each[0]:
        return {"recording": np.array(names), **{k: np.stack([one[k] for one in each]) for k in each[0]}}
    timed = {k: np.concatenate([one[k] for one in each]) for k in each[0]}
    return {"recording": np.array(names), "length": np.array([len(one["time"]) for one in each]), **timed}


def _result(
    result: Mapping[str, Any], recordings: Recordings, absent: Mapping[tuple[str, str], Recordings]
) -> dict[str, Any]:
    """The `result.json` of a fold with the scores of all folds' recordings in place of its own."""
    made = {k: v for k, v in result.items() if k not in _ABSENT} | {"metrics": {"test": _metrics(recordings)}}
    for (kind, stream), said in absent.items():
        made.setdefault(kind, {})[stream] = {"test": _metrics(said)}
    return made


def _metrics(recordings: Recordings) -> dict[str, float]:
    whole, each = _whole(recordings), list(recordings.values())
    if "prediction" not in whole:
        return metrics.class_scores(whole["label"], whole["probability"])
    prediction, target, mask = ([r[key] for r in each] for key in ("prediction", "target", "mask"))
    return metrics.trace_scores(prediction, target, mask)


def _processed(dev: Recordings, test: Recordings) -> tuple[Recordings, list[str]]:
    """The test recordings after post-processing that was fitted on dev, and the names of the steps kept."""
    learned = postprocess.split_recordings(_whole(dev))
    steps = postprocess.fit(*(learned[key] for key in ("prediction", "target", "mask", "fps")))
    tested = postprocess.split_recordings(_whole(test))
    traces = [postprocess.apply(steps, x, fps) for x, fps in zip(tested["prediction"], tested["fps"], strict=True)]
    after = {str(n): {**test[str(n)], "prediction": x} for n, x in zip(tested["recording"], traces, strict=True)}
    return after, [name for step in steps for name in step.kept]


def _scores(seeds: Sequence[Recordings], kept: Mapping[str, int]) -> Postprocessed:
    scores = [_metrics(recordings) for recordings in seeds]
    main, second = (float(np.mean([s[name] for s in scores])) for name in ("ccc_mean", "ccc_recording_mean"))
    return Postprocessed(main, second, kept)
