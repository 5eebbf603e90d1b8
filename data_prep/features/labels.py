"""Labels: traces of valence and arousal, gold or one per rater, on the times at which they were given."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_prep import annotations
from data_prep.features import reading
from data_prep.features.align import step_of
from data_prep.features.rows import Part, Rows, at, listed
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media.errors import UserError

DIMENSIONS = ("valence", "arousal")  # the order of `targets`
# Columns beside the raters of a table of one dimension that are no rater.
GOLD = ("goldstandard", "gold_standard", "gold", "value", "rating", "label", "mean", "ewe")


@dataclasses.dataclass(frozen=True)
class Traces:
    """The labels of one recording.

    Attributes:
      time: float64 `[T]`, s.
      targets: float64 `[T, 2]`, valence and arousal, NaN where unknown.
      raters: float64 `[T, R, 2]`, NaN for an absent rater; R >= 1.
      last: where the last label stands, for messages.
    """

    time: np.ndarray
    targets: np.ndarray
    raters: np.ndarray
    last: str


def places(part: Part, spec: TableSpec, dimension: str) -> list[str]:
    """The columns of a table of labels: `[valence, arousal]`, or those of one dimension.

    Raises:
      TableError: they are not there.
    """
    names = reading.columns(part, dataclasses.replace(spec, cols=())).feature_names
    lower = {name.strip().lower(): name for name in names}
    if spec.cols:
        return reading.columns(part, spec).feature_names
    if dimension:
        own = [lower[name] for name in (dimension, *GOLD) if name in lower]
        chosen = own[:1] or names
        if not chosen:
            raise TableError(f"it has no column of {dimension} (it has {listed(names)})")
        return chosen
    missing = [name for name in DIMENSIONS if name not in lower]
    if missing:
        lacks = " and ".join(missing)
        raise TableError(
            f"it has no column {lacks} (it has {listed(names)}): rename the columns, or name them by cols="
        )
    return [lower[name] for name in DIMENSIONS]


def read(parts: Mapping[str, Part], spec: TableSpec, delay: float, method: str, low: float, high: float) -> Traces:
    """Reads the labels of one recording.

    Args:
      parts: the table of each dimension, or one under the name "".
      spec: how they are read.
      delay: seconds by which raters lag; the labels move earlier by as much.
      method: how raters become a gold standard, a name in `annotations.GOLD_STANDARDS`.
      low, high: the range of the labels, which becomes [-1, 1].

    Raises:
      UserError: a table cannot be used; the file, the line and the remedy are named.
    """
    by_dimension: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    last = ""
    for name, part in parts.items():
        rows, time = _rows(part, spec, name)
        _check_range(part, rows, low, high)
        values = 2 * (rows.values.astype(np.float64) - low) / (high - low) - 1
        time = time - delay
        last = f"{part.path}, {rows.line(len(time) - 1)}"
        if name:
            by_dimension[name] = time, values
        else:
            by_dimension = {one: (time, values[:, i : i + 1]) for i, one in enumerate(DIMENSIONS)}
    at_times = by_dimension[DIMENSIONS[1]][0]
    raters, targets = [], []
    for name in DIMENSIONS:
        time, values = by_dimension[name]
        gold = values[:, 0] if values.shape[1] == 1 else annotations.gold_standard(values, method)
        targets.append(_onto(time, gold, at_times))
        raters.append(_onto(time, values, at_times))
    if len({one.shape[1] for one in raters}) > 1:
        raise UserError(f"{last}valence and arousal have different numbers of raters: name them by cols=.")
    rated = np.stack(raters, axis=2)
    if rated.shape[1] == 1:
        rated = np.full_like(rated, np.nan)  # a gold standard is no rater
    return Traces(at_times, np.stack(targets, axis=1), rated, last)


def _onto(time: np.ndarray, values: np.ndarray, at_times: np.ndarray) -> np.ndarray:
    if len(time) == len(at_times) and np.allclose(time, at_times, atol=1e-6):
        return values
    return annotations.resample(time, values, at_times)


def _rows(part: Part, spec: TableSpec, dimension: str) -> tuple[Rows, np.ndarray]:
    try:
        chosen = tuple(_escaped(name) for name in places(part, spec, dimension))
        rows = reading.read(part, dataclasses.replace(spec, cols=chosen))
        if dimension == "" and rows.values.shape[1] != 2:
            raise TableError("cols= must name two columns, valence and arousal")
        if not dimension and not spec.cols:
            order = [
                reading.columns(part, dataclasses.replace(spec, cols=chosen)).feature_names.index(n)
                for n in places(part, spec, dimension)
            ]
            rows = dataclasses.replace(rows, values=rows.values[:, order])
        if rows.time is None:
            raise TableError("its labels have no times: add a column of times in seconds, or rate=HZ")
    except TableError as error:
        raise at(part.path, error) from error
    except OSError as error:
        raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error
    return rows, rows.time


def _escaped(name: str) -> str:
    """A column's name as a pattern that matches it alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _check_range(part: Part, rows: Rows, low: float, high: float) -> None:
    outside = np.argwhere((rows.values < low - 1e-6) | (rows.values > high + 1e-6))
    if len(outside):
        row, column = outside[0]
        raise UserError(
            f"{part.path}, {rows.line(int(row))}the label {rows.values[row, column]:g} lies outside {low:g} to "
            f"{high:g}: name the range by --scale=LOW,HIGH."
        )


def grid(time: np.ndarray, rate: float) -> np.ndarray:
    """The times of a record: those of the labels, or every 1 / `rate` s over their range."""
    if not rate or not len(time):
        return time
    return time[0] + np.arange(int(np.floor((time[-1] - time[0]) * rate + 1e-6)) + 1) / rate


def resampled(traces: Traces, at_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets `[T, 2]` and raters `[T, R, 2]` at other times."""
    if at_times is traces.time:
        return traces.targets, traces.raters
    flat = traces.raters.reshape(len(traces.time), -1)
    step = step_of(traces.time)
    targets = annotations.resample(traces.time, traces.targets, at_times, step)
    raters = annotations.resample(traces.time, flat, at_times, step)
    return targets, raters.reshape(len(at_times), *traces.raters.shape[1:])


def rater_count(parts: Mapping[str, Part], spec: TableSpec) -> int:
    """How many raters the tables of a recording have; 0 for a gold standard.

    Raises:
      UserError: a table cannot be read.
    """
    try:
        counts = [len(places(part, spec, name)) for name, part in parts.items() if name]
    except TableError as error:
        raise at(next(iter(parts.values())).path, error) from error
    return counts[0] if counts and counts[0] > 1 else 0
