"""Continuous annotation: reading traces, resampling them to frame times, and combining raters into a gold standard."""

import csv
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from data_prep import tables
from media.errors import BadItem
from media.registry import Registry

GOLD_STANDARDS: Registry[Callable[[np.ndarray], np.ndarray]] = Registry("gold standard")


def pairwise(raters: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Averages `measure` between each rater and all others over the times that both rated.

    Args:
      raters: float `[T, R]`, NaN where a rater gave nothing.
      measure: of two traces, such as `pearson`.

    Returns:
      float64 `[R]`; 0 for a rater who shares no time with another.
    """
    count = raters.shape[1]
    values = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i + 1, count):
            both = np.isfinite(raters[:, i]) & np.isfinite(raters[:, j])
            if both.sum() >= 2:
                values[i, j] = values[j, i] = measure(raters[both, i], raters[both, j])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, which becomes 0
        return np.nan_to_num(np.nanmean(values, axis=1)) if count else np.zeros(0)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Pearson's correlation of two traces `[T]`; 0 if either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).mean() * (y * y).mean())
    return float((x * y).mean() / scale) if scale > 0 else 0.0


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Lin's concordance (CCC) of two traces `[T]` with biased moments (1/n); 0 if both are equal constants.

    It is not the CCC of `avemo.metrics`, which adds 1e-8 to the denominator as the loss does: rater weights of a
    published standard have no such term.
    """
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the raters present at each time: `[T, R]`, `[R]` -> `[T]`, NaN without raters."""
    weights = np.where(np.isfinite(values), weights, 0.0)
    total = weights.sum(axis=1)
    summed = (np.nan_to_num(values) * weights).sum(axis=1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)


@GOLD_STANDARDS.register("mean")
def mean_of_raters(raters: np.ndarray) -> np.ndarray:
    """Plain mean: `[T, R]` -> `[T]`."""
    return _weighted(raters, np.ones(raters.shape[1]))


@GOLD_STANDARDS.register("ewe")
def evaluator_weighted(raters: np.ndarray) -> np.ndarray:
    """Evaluator weighted estimator (Grimm & Kroschel 2005): weights = mean pairwise correlation, negatives set to 0.

    `[T, R]` -> `[T]`; the plain mean if no two raters agree.
    """
    weights = np.maximum(pairwise(raters, pearson), 0.0)
    return _weighted(raters, weights) if weights.sum() > 0 else mean_of_raters(raters)


@GOLD_STANDARDS.register("ccc")
def ccc_centred(raters: np.ndarray) -> np.ndarray:
    """The AVEC 2018 standard: raters are centred on a common mean, weighted by pairwise concordance.

    Trace = mean over raters of (rater − rater's mean) + weighted mean of the raters' means; `[T, R]` -> `[T]`. Negative
    weights are set to 0.
    """
    weights = np.maximum(pairwise(raters, ccc), 0.0)
    if weights.sum() == 0:
        weights = np.ones(raters.shape[1])
    present = np.isfinite(raters).any(axis=0)
    means = np.array([np.nanmean(raters[:, r]) if present[r] else 0.0 for r in range(raters.shape[1])])
    weights = np.where(present, weights, 0.0)
    level = (means * weights).sum() / weights.sum() if weights.sum() > 0 else np.nan
    return mean_of_raters(raters - means) + level


def gold_standard(raters: np.ndarray, method: str = "ewe") -> np.ndarray:
    """Combines the traces of several raters into one.

    Args:
      raters: float `[T, R]`; NaN where a rater gave nothing.
      method: "mean", "ewe" or "ccc".

    Returns:
      float64 `[T]`, NaN at times without raters.
    """
    return GOLD_STANDARDS[method](np.asarray(raters, np.float64))


# The longest hole in an annotation that is interpolated, in steps of the annotation; a longer one stays a hole.
MAX_BRIDGED_STEPS = 4


def step_of(time: np.ndarray) -> float:
    """Returns the usual step of an annotation's times float `[N]`, seconds; 0 for fewer than two."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def resample(time: np.ndarray, values: np.ndarray, at: np.ndarray, step: float | None = None) -> np.ndarray:
    """Interpolates traces linearly to other times.

    Args:
      time: float `[N]`, rising; values: float `[N]` or `[N, R]`, NaN allowed.
      at: float `[T]`, the times to interpolate at.
      step: of the annotation, seconds, by default `step_of(time)`. Values extend this far beyond the first and last
        time and into a hole, which is a distance of more than `MAX_BRIDGED_STEPS` steps.

    Returns:
      float64 `[T]` or `[T, R]`; NaN outside the traces, in holes, and between a value and a NaN.
    """
    time, values, at = np.asarray(time, np.float64), np.asarray(values, np.float64), np.asarray(at, np.float64)
    if values.ndim == 2:
        columns = [resample(time, values[:, r], at, step) for r in range(values.shape[1])]
        return np.stack(columns, axis=1) if columns else np.zeros((len(at), 0))
    if not len(time):
        return np.full(len(at), np.nan)
    reach = (step_of(time) if step is None else step) + 1e-9
    after = np.clip(np.searchsorted(time, at), 1, max(1, len(time) - 1))
    before = after - 1
    after = np.minimum(after, len(time) - 1)
    in_hole = (time[after] - time[before] > MAX_BRIDGED_STEPS * reach) & (at > time[before]) & (at < time[after])
    near_before, near_after = at - time[before] <= reach, time[after] - at <= reach
    out = np.interp(at, time, values)
    held = np.where(near_before, values[before], np.where(near_after, values[after], np.nan))
    out = np.where(in_hole, held, out)
    return np.where((at >= time[0] - reach) & (at <= time[-1] + reach), out, np.nan)


def holes(time: np.ndarray, step: float) -> int:
    """Number of holes in an annotation's times float `[N]` that `resample` does not bridge."""
    return int((np.diff(time) > MAX_BRIDGED_STEPS * (step + 1e-9)).sum())


def read_traces(path: pathlib.Path, delimiter: str | None = None) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Reads a table of traces: a header, then rows of a time and one value per rater.

    Blanks around column names are stripped (RECOLA's public files have `FM1 ;FM2 ;…`). The delimiter is detected in the
    header, which may name the unit of the times (`time (ms)`). An empty cell is NaN, a row without a time is left out.

    Returns:
      time float64 `[T]` in seconds, names of the R columns, values float64 `[T, R]`.

    Raises:
      BadItem: the file or its time column is missing, or a row is not numeric (its line is named).
    """
    try:
        table = tables.read(path, delimiter)
        unit = tables.time_unit(table.header[0])
        if unit not in ("", *tables.SECONDS):
            raise tables.TableError(f"the header must begin with 'time', in seconds, not {table.header[0]!r}")
        rows = []
        for number, row in table.rows:
            try:
                time = table.seconds(row[0]) * tables.SECONDS[unit or "s"]
                if np.isfinite(time):
                    rows.append([time, *map(table.number, row[1:])])
            except tables.TableError as error:
                raise tables.TableError(f"line {number}: {error}") from error
    except OSError as error:
        raise BadItem(f"annotation {path.name} is missing or unreadable") from error
    except tables.TableError as error:
        raise BadItem(f"annotation {path.name}: {error}") from error
    values = np.array(rows, np.float64).reshape(len(rows), len(table.header))
    if not np.all(np.diff(values[:, 0]) > 0):
        raise BadItem(f"annotation {path.name}: the times do not rise")
    return values[:, 0], table.header[1:], values[:, 1:]


def read_arff(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads an AVEC gold standard (`Instance_name, frameTime, GoldStandard`): time float64 `[T]`, values float64 `[T]`.

    Raises:
      BadItem: the file or an attribute is missing, or a row is not numeric.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise BadItem(f"annotation {path.name} is missing or unreadable") from error
    names, rows, data = [], [], False
    for line in lines:
        line = line.strip()
        if not line or line.startswith("%"):
            continue
        lowered = line.lower()
        if lowered.startswith("@attribute"):
            names.append(line.split()[1].strip("'\"").lower())
        elif lowered.startswith("@data"):
            data = True
        elif data:
            rows.append([cell.strip() for cell in next(csv.reader([line], quotechar="'"))])
    if "frametime" not in names or "goldstandard" not in names:
        raise BadItem(f"annotation {path.name}: attributes frameTime and GoldStandard expected, found {names}")
    t, v = names.index("frametime"), names.index("goldstandard")
    try:
        pairs = [[np.nan if row[i] == "?" else float(row[i]) for i in (t, v)] for row in rows]
    except (ValueError, IndexError) as error:
        raise BadItem(f"annotation {path.name}: a row is not numeric: {error}") from error
    table = np.array(pairs, np.float64).reshape(len(rows), 2)
    table = table[np.isfinite(table[:, 0])]
    if not np.all(np.diff(table[:, 0]) > 0):
        raise BadItem(f"annotation {path.name}: the times do not rise")
    return table[:, 0], table[:, 1]
