"""Whether two models differ: intervals and tests over recordings, corrected for the number of comparisons.

The unit is the recording, never the frame, because frames of one recording are far from independent. A score is a
function of *evidence that adds over recordings*: the sums of a CCC (`avemo.metrics.moments`), the sum and count of a
mean, the hits and totals of a recall. Resampling recordings is then one matrix product, and a thousand resamples cost
milliseconds.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from avemo.metrics.moments import ccc_of_sums
from media.errors import UserError

_CHUNK = 4_000_000  # recording weights held at once


@dataclasses.dataclass(frozen=True)
class Score:
    """A score and its evidence.

    Attributes:
      evidence: float64 `[S, R, K]`: K additive terms of each of R recordings, for S seeds of one model.
      value: `[..., K] -> [...]`, the score of summed evidence.
    """

    evidence: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]

    def seeds(self) -> np.ndarray:
        """The score of each seed, `[S]`."""
        return self.value(self.evidence.sum(1))

    def mean(self) -> float:
        """The score averaged over seeds."""
        return float(self.seeds().mean())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A paired difference (model − reference), its bootstrap interval and its permutation p-value (two-sided)."""

    difference: float
    low: float
    high: float
    p: float


def ccc_concatenated(sums: np.ndarray) -> Score:
    """The CCC over all frames of all recordings, averaged over dimensions; `sums` is `[S, R, C, 6]`."""
    shape = sums.shape
    return Score(
        sums.reshape(*shape[:2], -1),
        lambda total: ccc_of_sums(total.reshape(*total.shape[:-1], *shape[2:])).mean(-1),
    )


def ccc_per_recording(sums: np.ndarray) -> Score:
    """The mean CCC of the recordings, averaged over dimensions; a recording without labels is left out."""
    present = sums[..., 0] > 0
    return Score(np.stack([np.where(present, ccc_of_sums(sums), 0.0).mean(-1), present.mean(-1)], -1), ratio)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> Score:
    """Share of recordings classified correctly; `labels` int `[R]` (−1 is left out), `predicted` int `[S, R]`."""
    known = labels >= 0
    hits = (predicted == labels) & known
    return Score(np.stack([hits, np.broadcast_to(known, hits.shape)], -1).astype(np.float64), ratio)


def uar(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> Score:
    """Unweighted average recall over the classes that occur; arguments as in `accuracy`."""
    total = (labels[:, None] == np.arange(num_classes)).astype(np.float64)
    hits = total * (predicted == labels)[..., None]
    evidence = np.concatenate([hits, np.broadcast_to(total, hits.shape)], -1)

    def value(summed: np.ndarray) -> np.ndarray:
        right, all_ = summed[..., :num_classes], summed[..., num_classes:]
        occurs = all_ > 0
        return np.where(occurs, right / np.where(occurs, all_, 1), 0).sum(-1) / np.maximum(occurs.sum(-1), 1)

    return Score(evidence, value)


def ratio(total: np.ndarray) -> np.ndarray:
    """The score `[...]` of evidence `[..., 2]` that holds a sum and a count."""
    return total[..., 0] / np.maximum(total[..., 1], 1e-12)


def _resampled(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each of `count` recordings was drawn, float64 `[n, count]`, until n adds up to `resamples`."""
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, step := max(1, _CHUNK // count)):
        size = min(step, resamples - begin)
        yield rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)


def _exchanges(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields which recordings are exchanged, 0/1 `[n, count]`: every pattern if there are at most `resamples`."""
    if 2**count <= resamples:
        yield ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, step := max(1, _CHUNK // count)):
        yield rng.integers(0, 2, (min(step, resamples - begin), count)).astype(np.float64)


def _values(score: Score, weights: np.ndarray) -> np.ndarray:
    """Seed-mean score `[N]` under each row of recording weights `[N, R]`."""
    return score.value(np.einsum("nr,srk->nsk", weights, score.evidence, optimize=True)).mean(1)


def bootstrap(score: Score, *, resamples: int = 9999, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the seed-mean score over recordings (Efron & Tibshirani 1993, ch. 13).

    Args:
      score: the score; with a single recording the interval has no width and says nothing.
      resamples: number of draws of R recordings with replacement; all seeds share a draw.
      level: coverage.
      seed: seeds the draws.
    """
    draws = _resampled(score.evidence.shape[1], resamples, seed)
    values = np.concatenate([_values(score, weights) for weights in draws])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(score: Score, reference: Score, *, resamples: int = 9999, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compares two models on the same recordings.

    The interval is a paired bootstrap: both see the same draw. The p-value is from a permutation test: under the null
    hypothesis the two models' evidence may be exchanged recording by recording. It is exact if 2^R ≤ `resamples`;
    otherwise exchanges are random and 1 is added to both counts (Phipson & Smyth 2010).

    Raises:
      ValueError: the numbers of recordings or seeds differ.
    """
    if score.evidence.shape != reference.evidence.shape:
        raise ValueError(f"paired scores have evidence {score.evidence.shape} and {reference.evidence.shape}")
    count = score.evidence.shape[1]
    draws = np.concatenate(
        [_values(score, weights) - _values(reference, weights) for weights in _resampled(count, resamples, seed)]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    difference = score.mean() - reference.mean()
    chunks = []
    for swap in _exchanges(count, resamples, seed + 1):
        change = np.einsum("nr,srk->nsk", swap, reference.evidence - score.evidence, optimize=True)
        one = score.value(score.evidence.sum(1) + change)
        chunks.append((one - reference.value(reference.evidence.sum(1) - change)).mean(1))
    exchanged = np.concatenate(chunks)
    extreme = int((np.abs(exchanged) >= abs(difference) * (1 - 1e-9) - 1e-14).sum())
    exact = len(exchanged) == 2**count
    p = extreme / len(exchanged) if exact else (extreme + 1) / (len(exchanged) + 1)
    return Comparison(difference, float(low), float(high), min(1.0, float(p)))


def smallest_p(recordings: int, resamples: int = 9999) -> float:
    """The smallest two-sided p-value that `compare` can give for this number of recordings."""
    return 2 / 2**recordings if 2**recordings <= resamples else 1 / (resamples + 1)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: adjusted p-values `[N]` that control the family-wise error rate (Holm 1979).

    Raises:
      UserError: a value outside 0..1.
    """
    values = np.asarray(p, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(f"p-values must lie within 0..1, not {values.tolist()}.")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted
