"""What a difference between two models is worth: intervals and tests over recordings, corrected for their number.

The unit is the recording, never the frame: frames of one recording are far from independent. A score is a function
of *evidence that adds over recordings* (CCC: its moments; a mean of CCCs: their sum and count; recall: hits and
totals), so that resampling recordings is one matrix product, and a thousand resamples cost milliseconds.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from media.errors import UserError

EPSILON = 1e-8  # in the CCC's denominator only, as in `avemo.losses`


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


def moments(
    predictions: Sequence[np.ndarray], targets: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> np.ndarray:
    """Evidence of a CCC: (n, Σx, Σy, Σx², Σy², Σxy) of each recording, float64 `[R, C, 6]`.

    Args:
      predictions: R traces `[T, C]`; targets: the same shapes; masks: bool `[T]`, the frames that count; those
        whose target is NaN (unlabelled) do not.
    """
    rows = []
    for x, y, mask in zip(predictions, targets, masks, strict=True):
        mask = mask & np.isfinite(y).all(-1)
        x, y = np.asarray(x, np.float64)[mask], np.asarray(y, np.float64)[mask]
        n = np.full(x.shape[1], float(len(x)))
        rows.append(np.stack([n, x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)], -1))
    return np.stack(rows)


def ccc(moments: np.ndarray) -> np.ndarray:
    """CCC `[...]` of summed moments `[..., 6]`: every moment biased (1/n); 0 where there is no frame.

    Sums of squares in float64 lose nothing for traces within a few units of zero, which labels are.
    """
    n, sx, sy, sxx, syy, sxy = np.moveaxis(moments, -1, 0)
    n = np.maximum(n, 1.0)
    mx, my = sx / n, sy / n
    vx, vy = np.maximum(sxx / n - mx * mx, 0), np.maximum(syy / n - my * my, 0)
    return 2 * (sxy / n - mx * my) / (vx + vy + (mx - my) ** 2 + EPSILON)


def ccc_concatenated(moments: np.ndarray) -> Score:
    """The CCC over all frames of all recordings, averaged over dimensions; `moments` `[S, R, C, 6]`."""
    shape = moments.shape
    return Score(
        moments.reshape(*shape[:2], -1), lambda total: ccc(total.reshape(*total.shape[:-1], *shape[2:])).mean(-1)
    )


def ccc_per_recording(moments: np.ndarray) -> Score:
    """The mean over recordings of each one's own CCC, averaged over dimensions; one without labels is left out."""
    present = moments[..., 0] > 0
    evidence = np.stack([np.where(present, ccc(moments), 0.0).mean(-1), present.mean(-1)], -1)
    return Score(evidence, _ratio)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> Score:
    """Share of recordings classified rightly; `labels` int `[R]` (−1: left out), `predicted` int `[S, R]`."""
    known = labels >= 0
    hits = (predicted == labels) & known
    return Score(np.stack([hits, np.broadcast_to(known, hits.shape)], -1).astype(np.float64), _ratio)


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


def _ratio(total: np.ndarray) -> np.ndarray:
    return total[..., 0] / np.maximum(total[..., 1], 1e-12)


_CHUNK = 4_000_000  # recording weights held at once


def _resampled(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `count` recordings was drawn, `[n, count]` in chunks of n that add up to `resamples`."""
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, step := max(1, _CHUNK // count)):
        size = min(step, resamples - begin)
        yield rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)


def _exchanges(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Which recordings are exchanged, 0/1 `[n, count]` in chunks: every pattern where there are few enough."""
    if 2**count <= resamples:
        yield ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, step := max(1, _CHUNK // count)):
        yield rng.integers(0, 2, (min(step, resamples - begin), count)).astype(np.float64)


def _values(score: Score, weights: np.ndarray) -> np.ndarray:
    """Seed-mean score under each row of recording weights, `[N]`."""
    return score.value(np.einsum("nr,srk->nsk", weights, score.evidence, optimize=True)).mean(1)


def bootstrap(score: Score, *, resamples: int = 9999, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the seed-mean score over recordings (Efron & Tibshirani 1993, ch. 13).

    Args:
      score: the score; with a single recording the interval has no width and says nothing.
      resamples: draws of R recordings with replacement; all seeds share a draw.
      level: coverage.
      seed: of the draws.
    """
    draws = _resampled(score.evidence.shape[1], resamples, seed)
    values = np.concatenate([_values(score, weights) for weights in draws])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(score: Score, reference: Score, *, resamples: int = 9999, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compares two models on the same recordings.

    The interval is a paired bootstrap (both see the same draw). The p-value is a permutation test: under the null
    hypothesis the two models' evidence may be exchanged recording by recording; exact where 2^R ≤ `resamples`, by
    random exchanges otherwise (with 1 added to both counts, Phipson & Smyth 2010).

    Raises:
      ValueError: the two have different recordings or seeds.
    """
    if score.evidence.shape != reference.evidence.shape:
        raise ValueError(f"paired scores have evidence {score.evidence.shape} and {reference.evidence.shape}")
    count = score.evidence.shape[1]
    draws = np.concatenate(
        [_values(score, weights) - _values(reference, weights) for weights in _resampled(count, resamples, seed)]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    difference = score.mean() - reference.mean()
    exchanged = []
    for swap in _exchanges(count, resamples, seed + 1):
        change = np.einsum("nr,srk->nsk", swap, reference.evidence - score.evidence, optimize=True)
        one = score.value(score.evidence.sum(1) + change)
        exchanged.append((one - reference.value(reference.evidence.sum(1) - change)).mean(1))
    exchanged = np.concatenate(exchanged)
    extreme = int((np.abs(exchanged) >= abs(difference) * (1 - 1e-9) - 1e-14).sum())
    exact = len(exchanged) == 2**count
    p = extreme / len(exchanged) if exact else (extreme + 1) / (len(exchanged) + 1)
    return Comparison(difference, float(low), float(high), min(1.0, float(p)))


def smallest_p(recordings: int, resamples: int = 9999) -> float:
    """The smallest two-sided p-value that `compare` can give with so many recordings."""
    return 2 / 2**recordings if 2**recordings <= resamples else 1 / (resamples + 1)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction: adjusted p-values `[N]` that control the family-wise error rate (Holm 1979).

    Raises:
      UserError: a value outside 0..1.
    """
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"p-values lie within 0..1, not {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
