"""Scores of saved predictions, with intervals over recordings from `avemo.metrics.significance`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from avemo.runs.reader import Traces

RESAMPLES = 1000
MIN_GROUPS = 3  # below, a percentile interval says nothing
MAX_GROUPS = 10_000  # above, it takes a gigabyte to say a tenth of a point


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score and its 95 % percentile interval over resampled recordings.

    Attributes:
      value: the score.
      low, high: the interval; NaN where there are too few recordings.
      score: what it was computed from, or None.
      over: names of the recordings; two runs with the same are compared in pairs.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    score: significance.Score | None = None
    over: tuple[str, ...] = ()


def _estimate(score: significance.Score, over: tuple[str, ...]) -> Estimate:
    value = score.mean()
    if not MIN_GROUPS <= len(over) <= MAX_GROUPS or not np.isfinite(value):
        return Estimate(value, score=score, over=over)
    return Estimate(value, *significance.bootstrap(score, resamples=RESAMPLES), score, over)


def traces(recordings: Sequence[Traces]) -> dict[tuple[str, str], Estimate]:
    """CCC by (convention, dimension), with intervals.

    Conventions: "concatenated", one CCC over all frames of all recordings, and "per_recording", the mean of one CCC a
    recording. Dimensions: "valence", "arousal" and their "mean". Recordings without a rated frame are left out; a
    prediction that is not finite makes the score NaN.
    """
    rated = [r for r in recordings if np.isfinite(r.target).all(-1).any()]
    if not rated:
        return {}
    masks = [np.isfinite(r.target).all(-1) for r in rated]
    moments = significance.moments([r.prediction for r in rated], [r.target for r in rated], masks)[
        None
    ]  # [1, R, 2, 6]
    over = tuple(r.recording for r in rated)
    columns = {"valence": slice(0, 1), "arousal": slice(1, 2), "mean": slice(0, 2)}
    conventions = {"concatenated": significance.ccc_concatenated, "per_recording": significance.ccc_per_recording}
    return {
        (convention, dimension): _estimate(score(moments[:, :, part]), over)
        for convention, score in conventions.items()
        for dimension, part in columns.items()
    }


def recording_scores(recording: Traces) -> dict[str, dict[str, float]]:
    """CCC and RMSE of one recording, by dimension; empty where nobody rated it."""
    keep = np.isfinite(recording.target).all(-1)
    if not keep.any():
        return {}
    state = metrics.moments(recording.prediction, recording.target, keep)
    ccc, rmse = metrics.ccc(state), metrics.rmse(state)
    return {d: {"ccc": float(ccc[i]), "rmse": float(rmse[i])} for i, d in enumerate(metrics.DIMENSIONS)}


def _from_confusion(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`metrics.from_confusion` for many tables at once: counts `[..., true, predicted]` to scores `[...]`."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, guessed = counts.sum(-1), counts.sum(-2)
    total = np.maximum(counts.sum((-2, -1)), 1)

    def mean_over(value: np.ndarray, present: np.ndarray) -> np.ndarray:
        return (value * present).sum(-1) / np.maximum(present.sum(-1), 1)

    return {
        "accuracy": hits.sum(-1) / total,
        "uar": mean_over(hits / np.maximum(true, 1), true > 0),
        "macro_f1": mean_over(2 * hits / np.maximum(true + guessed, 1), true + guessed > 0),
    }


def classes(label: np.ndarray, probability: np.ndarray, groups: np.ndarray) -> dict[tuple[str, str], Estimate]:
    """Accuracy, UAR and macro-F1 under the keys ("", name), with intervals over resampled groups (recordings)."""
    size = max(probability.shape[1], int(label.max()) + 1)
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((1, len(names), size * size))
    np.add.at(counts[0], (index, label * size + probability.argmax(-1)), 1)
    over = tuple(str(name) for name in names)

    def score(name: str) -> significance.Score:
        return significance.Score(
            counts, lambda total: _from_confusion(total.reshape(*total.shape[:-1], size, size))[name]
        )

    return {("", name): _estimate(score(name), over) for name in ("accuracy", "uar", "macro_f1")}


def difference(first: Estimate, second: Estimate) -> Estimate:
    """`first − second`, with a paired interval where both are about the same recordings."""
    value = first.value - second.value
    if (
        first.score is None
        or second.score is None
        or first.over != second.over
        or np.isnan([first.low, second.low]).any()
    ):
        return Estimate(value)
    found = significance.compare(first.score, second.score, resamples=RESAMPLES)
    return Estimate(found.difference, found.low, found.high)
