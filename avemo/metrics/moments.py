"""Moments of two traces, and the CCC, Pearson's r and RMSE computed from them.

The moments of a set of frames come in two forms, both float64 `[..., 6]`:

* *centred*, (n, mean_x, mean_y, Sxx, Syy, Sxy) with centred sums S. They are exact at any offset and merge by Chan's
  formula, so the score of a whole split does not depend on how it was cut into batches, devices or hosts.
* *sums*, (n, Σx, Σy, Σx², Σy², Σxy). They add, so resampling recordings is one matrix product
  (`avemo.metrics.significance`). They cancel at a large offset but lose nothing for traces within a few units of zero,
  as labels are.

Variance convention: **biased / biased**. Every moment is divided by n, in CCC = 2·cov / (var_x + var_y + (mean_x −
mean_y)²) as in Pearson's r (where n cancels). A perfect prediction scores 1; formulas that mix n and n − 1 give 0.9967
for 300 frames. A trace that is constant or has at most one frame has CCC 0 and Pearson's r 0.
"""

from collections.abc import Sequence

import numpy as np

EPSILON = 1e-8  # in the CCC's denominator only, as in `avemo.losses`
DIMENSIONS = ("valence", "arousal")


def trace_moments(predictions: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Returns the centred moments of a trace, float64 `[K, 6]`.

    Args:
      predictions: `[T, K]` (x).
      targets: `[T, K]` (y); NaN marks an unlabelled frame, which is left out.
      mask: bool `[T]` or `[T, K]`, the frames that count; by default all.
    """
    # One trace per row: NumPy sums a row with vector instructions, a column of [T, K] number by number.
    x, y = (np.array(np.asarray(v).T, np.float64, order="C") for v in (predictions, targets))
    with np.errstate(invalid="ignore"):  # the sum of +∞ and −∞ is NaN, which is all the test below needs
        sum_y = y.sum(1)
    if mask is None and np.isfinite(sum_y).all():  # every frame counts
        n = np.full(len(y), float(y.shape[1]))
        mean_x, mean_y = x.sum(1) / np.maximum(n, 1), sum_y / np.maximum(n, 1)
        dx, dy = np.subtract(x, mean_x[:, None], out=x), np.subtract(y, mean_y[:, None], out=y)
    else:
        counts = np.isfinite(y)
        if mask is not None:
            counts = counts & np.asarray(mask, bool).reshape(y.shape[1], -1).T
        n = counts.sum(1)
        mean_x, mean_y = (np.where(counts, v, 0).sum(1) / np.maximum(n, 1) for v in (x, y))
        dx, dy = np.where(counts, x - mean_x[:, None], 0), np.where(counts, y - mean_y[:, None], 0)
    products = (np.vecdot(a, b) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    return np.stack([n, mean_x, mean_y, *products], -1)


def merge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the centred moments `[..., 6]` of two sets of frames together (Chan et al., 1979); associative."""
    n = a[..., 0] + b[..., 0]
    share = b[..., 0] / np.maximum(n, 1)
    step_x, step_y = b[..., 1] - a[..., 1], b[..., 2] - a[..., 2]
    between = a[..., 0] * share
    return np.stack(
        [
            n,
            a[..., 1] + share * step_x,
            a[..., 2] + share * step_y,
            a[..., 3] + b[..., 3] + between * step_x * step_x,
            a[..., 4] + b[..., 4] + between * step_y * step_y,
            a[..., 5] + b[..., 5] + between * step_x * step_y,
        ],
        -1,
    )


def recording_sums(
    predictions: Sequence[np.ndarray], targets: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns the sums of each recording, float64 `[R, K, 6]`.

    Args:
      predictions: R traces `[T, K]`.
      targets: R traces `[T, K]`; a frame with NaN in any dimension is left out of all.
      masks: R arrays bool `[T]`, the frames that count.
    """
    sums = []
    for x, y, mask in zip(predictions, targets, masks, strict=True):
        counts = mask & np.isfinite(y).all(-1)
        x, y = np.asarray(x, np.float64)[counts], np.asarray(y, np.float64)[counts]
        n = np.full(x.shape[1], float(len(x)))
        sums.append(np.stack([n, x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)], -1))
    return np.stack(sums)


def ccc(centred: np.ndarray) -> np.ndarray:
    """Concordance correlation `[...]` of centred moments `[..., 6]`; 0 for degenerate traces."""
    n, mean_x, mean_y, sxx, syy, sxy = np.moveaxis(centred, -1, 0)
    n = np.maximum(n, 1)
    return _concordance(sxx / n, syy / n, sxy / n, mean_x - mean_y)


def ccc_of_sums(sums: np.ndarray) -> np.ndarray:
    """Concordance correlation `[...]` of sums `[..., 6]`; 0 for degenerate traces."""
    n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1.0)
    mx, my = sx / n, sy / n
    vx, vy = np.maximum(sxx / n - mx * mx, 0), np.maximum(syy / n - my * my, 0)
    return _concordance(vx, vy, sxy / n - mx * my, mx - my)


def _concordance(var_x: np.ndarray, var_y: np.ndarray, covariance: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return 2 * covariance / (var_x + var_y + offset**2 + EPSILON)


def pearson(centred: np.ndarray) -> np.ndarray:
    """Pearson's r `[...]` of centred moments `[..., 6]`; 0 where either trace is constant."""
    scale = np.sqrt(centred[..., 3] * centred[..., 4])
    return np.where(scale > 0, centred[..., 5] / np.where(scale > 0, scale, 1), 0.0)


def rmse(centred: np.ndarray) -> np.ndarray:
    """Root mean squared error `[...]` of centred moments `[..., 6]`; 0 if no frame counts."""
    n, mean_x, mean_y, sxx, syy, sxy = np.moveaxis(centred, -1, 0)
    return np.sqrt(np.maximum((sxx + syy - 2 * sxy) / np.maximum(n, 1), 0) + (mean_x - mean_y) ** 2)
