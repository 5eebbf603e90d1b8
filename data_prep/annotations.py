"""Continuous annotation: raters' traces to a gold standard, traces to frame times, and the files they come in."""

import csv
import io
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from media.errors import BadItem
from media.registry import Registry

GOLD_STANDARDS: Registry[Callable[[np.ndarray], np.ndarray]] = Registry("gold standard")


def pairwise(raters: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """Mean of `measure` between each rater and every other one, over the times that both have: float64 `[R]`.

    0 where a rater shares no time with another, or for a single rater.
    """
    count = raters.shape[1]
    values = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i + 1, count):
            both = np.isfinite(raters[:, i]) & np.isfinite(raters[:, j])
            if both.sum() >= 2:
                values[i, j] = values[j, i] = measure(raters[both, i], raters[both, j])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rater alone: the mean of nothing is NaN, then 0
        return np.nan_to_num(np.nanmean(values, axis=1)) if count else np.zeros(0)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two traces `[T]`; 0 if either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).mean() * (y * y).mean())
    return float((x * y).mean() / scale) if scale > 0 else 0.0


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    """Lin's concordance of two traces `[T]`, all moments biased (1/n); 0 if both are constant and equal."""
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over raters at each time, of those present: `[T, R]`, `[R]` -> `[T]`, NaN where nobody is."""
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

    `[T, R]` -> `[T]`; the plain mean where no rater agrees with another.
    """
    weights = np.maximum(pairwise(raters, pearson), 0.0)
    return _weighted(raters, weights) if weights.sum() > 0 else mean_of_raters(raters)


@GOLD_STANDARDS.register("ccc")
def ccc_centred(raters: np.ndarray) -> np.ndarray:
    """The AVEC 2018 standard: each rater centred on a common mean, which is weighted by pairwise concordance.

    Trace = mean over raters − its mean + weighted mean of the raters' means; `[T, R]` -> `[T]`. Negative weights are 0.
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
    """One trace from several raters.

    Args:
      raters: float `[T, R]`; NaN where a rater gave nothing.
      method: "mean", "ewe" or "ccc".

    Returns:
      float64 `[T]`, NaN where nobody rated.
    """
    return GOLD_STANDARDS[method](np.asarray(raters, np.float64))


def resample(time: np.ndarray, values: np.ndarray, at: np.ndarray, reach: float | None = None) -> np.ndarray:
    """Linear interpolation of traces to other times.

    Args:
      time: float `[N]`, rising; values: float `[N]` or `[N, R]`, NaN allowed.
      at: float `[T]`, the times wanted.
      reach: seconds beyond the first and last stamp that still take its value; default one step of the annotation.

    Returns:
      float64 `[T]` or `[T, R]`; NaN outside, and between a value and a NaN.
    """
    time, values, at = np.asarray(time, np.float64), np.asarray(values, np.float64), np.asarray(at, np.float64)
    if values.ndim == 2:
        columns = [resample(time, values[:, r], at, reach) for r in range(values.shape[1])]
        return np.stack(columns, axis=1) if columns else np.zeros((len(at), 0))
    if not len(time):
        return np.full(len(at), np.nan)
    if reach is None:
        reach = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    out = np.interp(at, time, values)
    return np.where((at >= time[0] - reach - 1e-9) & (at <= time[-1] + reach + 1e-9), out, np.nan)


def read_traces(path: pathlib.Path, delimiter: str | None = None) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Reads a table of traces: a header, then a time and one column a rater.

    Column names lose the blanks around them (RECOLA's public files read `FM1 ;FM2 ;…`), and the delimiter is found in
    the header, `;`, `,` or tab. A byte-order mark is ignored; an empty cell is NaN.

    Returns:
      time float64 `[T]` in seconds, names of the R columns, values float64 `[T, R]`.

    Raises:
      BadItem: no such file, no time column, or a row that is not numbers (its line is named).
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BadItem(f"annotation {path.name} is missing or unreadable") from error
    header = text.split("\n", 1)[0]
    if delimiter is None:
        delimiter = max(";,\t", key=header.count)
    rows = [
        row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(c.strip() for c in row)
    ]
    if not rows:
        raise BadItem(f"annotation {path.name} is empty")
    names = [cell.strip() for cell in rows[0]]
    if names[0].lower() not in ("time", "frametime"):
        raise BadItem(f"annotation {path.name}: the header must begin with 'time', not {names[0]!r}")
    while names and not names[-1]:
        names.pop()
    table = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            table.append([float(cell) if cell.strip() else np.nan for cell in row[: len(names)]])
        except ValueError as error:
            raise BadItem(f"annotation {path.name}, line {number}: {error}") from error
        if len(table[-1]) != len(names):
            raise BadItem(f"annotation {path.name}, line {number}: {len(row)} cells for {len(names)} columns")
    values = np.array(table, np.float64).reshape(len(table), len(names))
    if not np.all(np.diff(values[:, 0]) > 0):
        raise BadItem(f"annotation {path.name}: the times do not rise")
    return values[:, 0], names[1:], values[:, 1:]


def read_arff(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads an AVEC gold standard (`Instance_name, frameTime, GoldStandard`): time float64 `[T]`, values float64 `[T]`.

    Raises:
      BadItem: no such file, an attribute is missing, or a row is not numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise BadItem(f"annotation {path.name} is missing or unreadable") from error
    names, rows, data = [], [], False
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("%"):
            continue
        lowered = line.lower()
        if lowered.startswith("@attribute"):
            names.append(line.split()[1].strip("'\"").lower())
        elif lowered.startswith("@data"):
            data = True
        elif data:
            rows.append((number, next(csv.reader([line], quotechar="'"))))
    if "frametime" not in names or "goldstandard" not in names:
        raise BadItem(f"annotation {path.name}: attributes frameTime and GoldStandard expected, found {names}")
    t, v = names.index("frametime"), names.index("goldstandard")
    try:
        table = np.array([[float(row[t]), float(row[v])] for _, row in rows], np.float64).reshape(len(rows), 2)
    except (ValueError, IndexError) as error:
        raise BadItem(f"annotation {path.name}: a row is not numbers: {error}") from error
    return table[:, 0], table[:, 1]
