"""Scores of saved predictions, with bootstrap intervals over recordings."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from avemo import metrics
from avemo.metrics import significance
from avemo.runs.reader import RecordingTraces

RESAMPLES = 1000
MIN_GROUPS = 3  # with fewer recordings a percentile interval says nothing
MAX_GROUPS = 10_000  # with more it takes a gigabyte to say a tenth of a point


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score and its 95 % percentile interval over resampled recordings.

    Attributes:
      value: the score.
      low, high: the interval; NaN if there are too few recordings.
      score: the score with its evidence; None for a difference.
      over: names of the recordings; two runs are compared in pairs if theirs are the same.
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


def of_traces(recordings: Sequence[RecordingTraces]) -> dict[tuple[str, str], Estimate]:
    """CCC by (convention, dimension), with intervals; empty if nobody rated a frame.

    The convention is "concatenated" (one CCC over all frames of all recordings) or "per_recording" (the mean CCC of the
    recordings). The dimension is "valence", "arousal" or "mean". Recordings without a rated frame are left out. A
    prediction that is not finite makes the score NaN.
    """
    rated = [r for r in recordings if r.rated.any()]
    if not rated:
        return {}
    sums = metrics.recording_sums([r.prediction for r in rated], [r.target for r in rated], [r.rated for r in rated])
    over = tuple(r.recording for r in rated)
    columns = {"valence": slice(0, 1), "arousal": slice(1, 2), "mean": slice(0, 2)}
    conventions = {"concatenated": significance.ccc_concatenated, "per_recording": significance.ccc_per_recording}
    return {
        (convention, dimension): _estimate(score(sums[None, :, column]), over)  # one seed
        for convention, score in conventions.items()
        for dimension, column in columns.items()
    }


def of_recording(recording: RecordingTraces) -> dict[str, dict[str, float]]:
    """CCC and RMSE of one recording, by dimension; empty if nobody rated it."""
    if not recording.rated.any():
        return {}
    moments = metrics.trace_moments(recording.prediction, recording.target, recording.rated)
    ccc, rmse = metrics.ccc(moments), metrics.rmse(moments)
    return {d: {"ccc": float(ccc[i]), "rmse": float(rmse[i])} for i, d in enumerate(metrics.DIMENSIONS)}


def of_classes(label: np.ndarray, probability: np.ndarray, groups: np.ndarray) -> dict[tuple[str, str], Estimate]:
    """Accuracy, UAR and macro-F1 under the keys ("", name), with intervals over resampled groups.

    Args:
      label: int `[N]`, all ≥ 0.
      probability: `[N, C]`.
      groups: `[N]`, names of the recordings.
    """
    size = max(probability.shape[1], int(label.max()) + 1)
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((1, len(names), size * size))
    np.add.at(counts[0], (index, label * size + probability.argmax(-1)), 1)
    over = tuple(str(name) for name in names)

    def score(name: str) -> significance.Score:
        return significance.Score(
            counts, lambda total: metrics.confusion_scores(total.reshape(*total.shape[:-1], size, size))[name]
        )

    return {("", name): _estimate(score(name), over) for name in ("accuracy", "uar", "macro_f1")}


def difference(first: Estimate, second: Estimate) -> Estimate:
    """`first − second`, with a paired interval if both are over the same recordings and have intervals themselves."""
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
