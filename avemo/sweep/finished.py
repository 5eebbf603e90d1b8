"""The finished seeds of a setting: read from their run folders, and scored from their predictions."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from avemo import metrics
from avemo.evaluation import postprocess
from avemo.metrics import significance
from avemo.sweep.plan import Cell
from media import files


def read_json(path: epath.Path) -> dict[str, Any] | None:
    """Reads a JSON file; None if it is missing.

    Raises:
      UserError: it is damaged.
    """
    return files.read_json(path) if path.exists() else None


def read_result(folder: epath.Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell; None if it is not finished."""
    return read_json(folder / cell.folder / "result.json")


def scored_split(cells: Sequence[Cell], folder: epath.Path) -> str:
    """`test` if every finished cell has scores on it, else `dev`; RECOLA's test labels, for example, are not public."""
    results = [result for cell in cells if (result := read_result(folder, cell))]
    return "test" if results and all("test" in result["metrics"] for result in results) else "dev"


def main_score(values: Mapping[str, float]) -> float:
    """The score that settings are ranked by: the mean CCC, or UAR for emotions."""
    return values["ccc_mean"] if "ccc_mean" in values else values["uar"]


def failure(cell: Cell, folder: epath.Path, split: str) -> str:
    """Why a cell failed, or could not be scored on the split; "" if neither."""
    result = read_result(folder, cell)
    if result is None:
        return (read_json(folder / cell.folder / "error.json") or {"error": ""})["error"]
    if split in result["metrics"]:
        return ""
    return f"not scored on {split}: {result.get('unscored', {}).get(split, 'the run has no such split')}"


@dataclasses.dataclass(frozen=True)
class FinishedSeeds:
    """The finished seeds, at least one, of the candidate chosen for a setting.

    Attributes:
      cells: the seeds.
      results: their `result.json`.
      predictions: what they predicted on `split`.
      split: the split that is scored.
      folds: the number of folds whose predictions are pooled; 0 without cross-validation.
      candidate: the candidate chosen, in cross-validation in each fold.
      processed: in cross-validation, the scores after post-processing.
    """

    cells: Sequence[Cell]
    results: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, np.ndarray]]
    split: str
    folds: int = 0
    candidate: str = ""
    processed: "Postprocessed | None" = None

    @property
    def has_traces(self) -> bool:
        """Whether the runs predict traces; otherwise they predict emotions."""
        return "prediction" in self.predictions[0]

    @property
    def units(self) -> Sequence[Any]:
        """What is resampled: names of recordings, or the numbers of the faces an expression network was scored on."""
        first = self.predictions[0]
        return list(first["recording"]) if "recording" in first else list(range(len(first["label"])))

    @functools.cached_property
    def _sums(self) -> np.ndarray:
        """The sums of a CCC, `[seeds, recordings, 2, 6]`."""
        seeds = [postprocess.split_recordings(predictions) for predictions in self.predictions]
        return np.stack([metrics.recording_sums(s["prediction"], s["target"], s["mask"]) for s in seeds])

    @functools.cached_property
    def _probability(self) -> np.ndarray:
        return np.stack([predictions["probability"] for predictions in self.predictions])

    @functools.cached_property
    def main(self) -> significance.Score:
        """CCC over the concatenation, or UAR for emotions."""
        if self.has_traces:
            return significance.ccc_concatenated(self._sums)
        labels, predicted = self.predictions[0]["label"], self._probability.argmax(-1)
        return significance.uar(labels, predicted, self._probability.shape[-1])

    @functools.cached_property
    def second(self) -> significance.Score:
        """Mean CCC of the recordings, or accuracy for emotions."""
        if self.has_traces:
            return significance.ccc_per_recording(self._sums)
        return significance.accuracy(self.predictions[0]["label"], self._probability.argmax(-1))

    def by_recording(self) -> dict[str, float]:
        """Each recording's own score, mean over seeds: its CCC, or the share of seeds that recognise its emotion."""
        if self.has_traces:
            each = metrics.ccc_of_sums(self._sums).mean((0, 2))
        else:
            each = np.mean([p["probability"].argmax(-1) == p["label"] for p in self.predictions], 0)
        return dict(zip(map(str, self.units), map(float, each), strict=True))

    def mean(self, name: str) -> float | None:
        """Seed mean of a logged metric of the split; None if the runs do not have it."""
        values = [result["metrics"][self.split].get(name) for result in self.results]
        return None if None in values else float(np.mean(values))

    def streams(self, kind: str) -> dict[str, float]:
        """Seed means of the main score by stream: `modalities`, all others masked, or `without`, it alone masked.

        Empty if the runs were not scored so.
        """
        scores = [result.get(kind) or {} for result in self.results]
        names = [name for name in scores[0] if all(self.split in one.get(name, ()) for one in scores)]
        return {name: float(np.mean([main_score(one[name][self.split]) for one in scores])) for name in names}


def choose(candidates: Sequence[Sequence[Cell]], folder: epath.Path, split: str) -> FinishedSeeds | None:
    """The candidate with the best mean dev score among those with the most finished seeds that are scored on `split`.

    None if no seed is.
    """
    best: tuple[tuple[int, float], list[tuple[Cell, dict[str, Any]]]] = ((0, -np.inf), [])
    for seeds in candidates:
        results = [(cell, result) for cell in seeds if (result := read_result(folder, cell))]
        finished = [(cell, result) for cell, result in results if split in result["metrics"]]
        dev = [main_score(result["metrics"]["dev" if "dev" in result["metrics"] else split]) for _, result in finished]
        rank = (len(finished), float(np.mean(dev)) if dev else -np.inf)
        if rank > best[0]:
            best = (rank, finished)
    if not best[1]:
        return None
    cells, results = zip(*best[1], strict=True)
    predictions = [postprocess.read_predictions(folder / cell.folder, split) for cell in cells]
    return FinishedSeeds(cells, results, predictions, split, candidate=cells[0].candidate)


def compare(seeds: FinishedSeeds, reference: FinishedSeeds) -> significance.Comparison | None:
    """Compares over the seeds that both have; None if they share none, or their recordings differ."""
    mine, theirs = ([cell.seed for cell in one.cells] for one in (seeds, reference))
    common = sorted(set(mine) & set(theirs))
    if not common or list(seeds.units) != list(reference.units):
        return None

    def keep(score: significance.Score, numbers: list[int]) -> significance.Score:
        return significance.Score(score.evidence[[numbers.index(n) for n in common]], score.value)

    return significance.compare(keep(seeds.main, mine), keep(reference.main, theirs))


@dataclasses.dataclass(frozen=True)
class Postprocessed:
    """Seed-mean scores after post-processing.

    Attributes:
      main, second: CCC over the concatenation, and mean CCC of the recordings.
      kept: how often each step was kept, over seeds and dimensions.
    """

    main: float
    second: float
    kept: Mapping[str, int]


def postprocessed(seeds: FinishedSeeds, folder: epath.Path) -> Postprocessed | None:
    """Fits post-processing on each seed's dev predictions and scores it on the split.

    None for emotions, and if dev has no labels to fit on.
    """
    if seeds.folds:
        return seeds.processed
    if not seeds.has_traces or not all("dev" in result["metrics"] for result in seeds.results):
        return None
    after, kept = [], dict[str, int]()
    for cell in seeds.cells:
        # Fitted once per cell: it takes a second, and the tables are written often.
        out = read_json(folder / cell.folder / "postprocess.json") or postprocess.run(folder / cell.folder)
        after.append(out["metrics"][seeds.split]["after"])
        for steps in out["steps"].values():
            for name in steps["kept"]:
                kept[name] = kept.get(name, 0) + 1
    main, second = (
        float(np.mean([scores[name] for scores in after])) for name in ("ccc_concatenated", "ccc_recording")
    )
    return Postprocessed(main, second, kept)
