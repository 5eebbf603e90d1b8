"""Brings the rows of a table to the times of the labels."""

import numpy as np

# Times come rounded to hundredths: a row belongs to a label if it lies within half a step, and this share of it.
SLACK = 1.02
# Two rows are neighbours, between which values are interpolated, if they are at most this many steps apart.
NEIGHBOURS = 1.5


def step_of(time: np.ndarray) -> float:
    """The usual step of rising times float `[N]`, s; 0 for fewer than two."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def to_times(
    time: np.ndarray,
    values: np.ndarray,
    valid: np.ndarray,
    at: np.ndarray,
    how: str = "interpolate",
    window: float = 0.0,
    max_gap: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Brings rows to other times.

    Args:
      time: float64 `[N]`, rising, s; values: float32 `[N, D]`; valid: bool `[N]`, False for rows not to be used.
      at: float64 `[T]`, rising, s.
      how: "interpolate" between the rows before and after, both valid; "mean" of the valid rows of a window around each
        time; "nearest" row.
      window: of "mean", s; 0 = the step of `at`.
      max_gap: longest time between two rows that are interpolated, or from a row to a time that takes it, s; 0 = one
        and a half steps, and three quarters of a step for "nearest".

    Returns:
      float32 `[T, D]`, 0 where masked, and the mask bool `[T]`.
    """
    if not len(time):
        return np.zeros((len(at), values.shape[1]), np.float32), np.zeros(len(at), bool)
    step = step_of(time)
    if how == "mean":
        return _means(time, values, valid, at, window or step_of(at) or step)
    reach = max_gap or NEIGHBOURS * step
    # What one row stands for at the ends of the table and of a gap; a table of one row stands for its own time only.
    half = max(SLACK * step / 2 if how == "interpolate" else max_gap or reach / 2, 1e-6)
    after = np.clip(np.searchsorted(time, at), 0, len(time) - 1)
    before = np.clip(after - 1, 0, None)
    nearest = np.where(np.abs(time[after] - at) <= np.abs(at - time[before]), after, before)
    close = np.abs(time[nearest] - at) <= half
    if how == "nearest":
        mask = close & valid[nearest]
        return np.where(mask[:, None], values[nearest], np.float32(0)), mask
    width = time[after] - time[before]
    share = np.where(width > 0, (at - time[before]) / np.where(width > 0, width, 1.0), 0.0)
    between = (share > 0) & (share < 1) & (width <= reach * (1 + 1e-9)) & valid[before] & valid[after]
    weight = np.where(between, share, 0.0)[:, None]
    low, high = values[np.where(between, before, nearest)], values[after]
    # A masked row may hold NaN, and NaN times 0 is NaN.
    mixed = np.where(weight > 0, low * (1 - weight) + high * weight, low)
    on_row = np.abs(time[nearest] - at) <= 0.02 * step + 1e-9
    alone = close & valid[nearest] & (on_row | ~_inside(time, at) | _by_a_gap(valid, before, after, width, reach))
    mask = between | alone
    return np.where(mask[:, None], mixed, 0).astype(np.float32), mask


def _inside(time: np.ndarray, at: np.ndarray) -> np.ndarray:
    return (at > time[0]) & (at < time[-1])


def _by_a_gap(valid: np.ndarray, before: np.ndarray, after: np.ndarray, width: np.ndarray, reach: float) -> np.ndarray:
    """Whether one of the two neighbours cannot be used, so that the nearest row alone may stand for a time."""
    return (width > reach) | ~valid[before] | ~valid[after]


def _means(
    time: np.ndarray, values: np.ndarray, valid: np.ndarray, at: np.ndarray, window: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means over the valid rows in `[at − window / 2, at + window / 2)`."""
    time, values = time[valid], values[valid]
    begin = np.searchsorted(time, at - window / 2 - 1e-9)
    end = np.searchsorted(time, at + window / 2 - 1e-9)
    mask = end > begin
    out = np.zeros((len(at), values.shape[1]), np.float32)
    if mask.any():
        bounds = np.stack([begin[mask], end[mask]], axis=1).ravel()
        padded = np.concatenate([values, np.zeros((1, values.shape[1]), values.dtype)])
        out[mask] = np.add.reduceat(padded, bounds, axis=0)[::2] / (end - begin)[mask, None]
    return out, mask
