"""Labels: traces of valence and arousal, gold or one per rater, on the times at which they were given."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep import annotations
from data_prep.features import reading
from data_prep.features.align import step_of
from data_prep.features.layout import select
from data_prep.features.rows import Part, Rows, at, listed
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media.errors import UserError

DIMENSIONS = ("valence", "arousal")  # the order of `targets`
# Names of the gold standard's column in the table of one dimension; a table without one has a column per rater.
GOLD = ("goldstandard", "gold_standard", "gold", "value", "rating", "label", "mean", "ewe")
RATER = "rater"  # the column that tells raters apart in a table with valence and arousal


@dataclasses.dataclass(frozen=True)
class Reading:
    """How labels are read.

    Attributes:
      spec: of their tables.
      delay: seconds by which raters lag; the labels move earlier by as much.
      method: how raters become a gold standard, a name in `annotations.GOLD_STANDARDS`.
      low, high: the range of the labels, which becomes [-1, 1].
      raters: names of the raters of the whole data set, in order; empty for a gold standard.
    """

    spec: TableSpec
    delay: float = 0.0
    method: str = "ewe"
    low: float = -1.0
    high: float = 1.0
    raters: tuple[str, ...] = ()


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


def _spoken(spec: TableSpec) -> dict[str, str]:
    return {"valence": spec.valence, "arousal": spec.arousal}


def path_of(spec: TableSpec, dimension: str) -> str:
    """The path of one dimension's tables."""
    return spec.path.replace("{dimension}", _spoken(spec)[dimension])


def _columns(part: Part, spec: TableSpec, dimension: str) -> list[str]:
    """The columns of a table of labels: those of valence and arousal, or of one dimension: gold, or one per rater."""
    if spec.cols:
        return reading.feature_names(part, spec)
    names = reading.feature_names(part, spec)
    lower = {name.strip().lower(): name for name in names}
    words = {one: word.lower() for one, word in _spoken(spec).items()}
    if dimension:
        gold = next((lower[name] for name in (words[dimension], dimension, *GOLD) if name in lower), None)
        if not names:
            raise TableError(f"it has no column of {dimension}: add one called value, or one per rater")
        return [gold] if gold is not None else names
    missing = [words[name] for name in DIMENSIONS if words[name] not in lower]
    if missing:
        lacks = " and ".join(missing)
        raise TableError(f"it lacks column {lacks} (it has {listed(names)}): rename it, or give arousal=NAME")
    return [lower[words[name]] for name in DIMENSIONS]


def _rater_column(part: Part, spec: TableSpec) -> str:
    """The column of raters in a text table of both dimensions, or ""."""
    if pathlib.Path(part.path).suffix.lower() not in reading.TEXT:
        return ""
    names = select(reading.layout(part.path, spec), spec)[0].names
    return next((name for name in names if name.strip().lower() == RATER), "")


def _read(part: Part, spec: TableSpec, dimension: str) -> dict[str, Rows]:
    """The labels of each rater, or of each column of raters, as rows of one column per dimension of the table."""
    chosen = _columns(part, spec, dimension)
    narrow = dataclasses.replace(spec, cols=tuple(_escaped(name) for name in chosen))
    column = "" if dimension else _rater_column(part, spec)
    found = reading.read_by(part, narrow, column) if column else {"": reading.read(part, narrow)}
    place = [reading.feature_names(part, narrow).index(name) for name in chosen]
    found = {name: dataclasses.replace(rows, values=rows.values[:, place]) for name, rows in found.items()}
    if not found:
        raise TableError(f"column {column!r} names no rater: fill it in")
    rows = next(iter(found.values()))
    if rows.time is None:
        raise TableError("its labels have no times: add a column of times in seconds, or rate=HZ")
    if not dimension and rows.values.shape[1] != 2:
        raise TableError("cols= must choose two columns, valence and arousal")
    if dimension and len(chosen) > 1:
        return {name: dataclasses.replace(rows, values=rows.values[:, [i]]) for i, name in enumerate(chosen)}
    return found


def _escaped(name: str) -> str:
    """A column's name as a pattern that matches it alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def raters(labelled: Sequence[Mapping[str, Part]], spec: TableSpec) -> tuple[str, ...]:
    """Names of the raters of all recordings, sorted; empty if their labels are a gold standard.

    Raises:
      UserError: a table cannot be read.
    """
    found: dict[str, None] = {}
    for parts in labelled:
        for dimension, part in parts.items():
            try:
                if dimension and len(names := _columns(part, spec, dimension)) > 1:
                    found |= dict.fromkeys(name.strip() for name in names)
                elif not dimension and _rater_column(part, spec):
                    found |= dict.fromkeys(_read(part, spec, dimension))
            except TableError as error:
                raise at(part.path, error) from error
            except OSError as error:
                raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error
    return tuple(sorted(found))


def read(parts: Mapping[str, Part], how: Reading) -> Traces:
    """Reads the labels of one recording.

    Args:
      parts: the table of each dimension, or one under the name "".
      how: how they are read.

    Raises:
      UserError: a table cannot be used; the file, the line and the remedy are named.
    """
    # By dimension and rater: times and values.
    given: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {name: {} for name in DIMENSIONS}
    last = ""
    for dimension, part in parts.items():
        try:
            found = _read(part, how.spec, dimension)
            if how.raters and dimension and "" in found:  # its only column is a rater's
                found = {_columns(part, how.spec, dimension)[0]: found[""]}
        except TableError as error:
            raise at(part.path, error) from error
        except OSError as error:
            raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error
        for rater, rows in found.items():
            if how.raters and rater.strip() not in how.raters:
                raise UserError(
                    f"{part.path}: it names none of the raters of the data set ({listed(how.raters)}): name its rater, "
                    "or exclude the recording."
                )
            _check_range(part, rows, how)
            time = np.asarray(rows.time) - how.delay
            values = 2 * (rows.values.astype(np.float64) - how.low) / (how.high - how.low) - 1
            last = f"{part.path}, {rows.line(len(time) - 1)}"
            for column, name in enumerate((dimension,) if dimension else DIMENSIONS):
                given[name][rater.strip()] = time, values[:, column]
    time = max((one for by in given.values() for one, _ in by.values()), key=len)
    if len(time) == 0:
        raise UserError(f"{next(iter(parts.values())).path}: it has no label: fill it in, or exclude the recording.")
    names = how.raters or ("",)
    absent = np.zeros(0), np.zeros(0)
    traces = np.stack(
        [np.stack([_onto(*given[d].get(rater, absent), time) for rater in names], axis=1) for d in DIMENSIONS], axis=2
    )
    if not how.raters:
        return Traces(time, traces[:, 0], np.full_like(traces, np.nan), last)
    gold = [annotations.gold_standard(traces[:, :, d], how.method) for d in range(2)]
    return Traces(time, np.stack(gold, axis=1), traces, last)


def _onto(time: np.ndarray, values: np.ndarray, at_times: np.ndarray) -> np.ndarray:
    if not len(time):
        return np.full(len(at_times), np.nan)
    if len(time) == len(at_times) and np.allclose(time, at_times, rtol=0, atol=1e-6):
        return values
    return annotations.resample(time, values, at_times)


def _check_range(part: Part, rows: Rows, how: Reading) -> None:
    slack = 1e-6 * (how.high - how.low)
    outside = np.argwhere((rows.values < how.low - slack) | (rows.values > how.high + slack))
    if len(outside):
        row, column = outside[0]
        raise UserError(
            f"{part.path}, {rows.line(int(row))}the label {rows.values[row, column]:g} lies outside {how.low:g} to "
            f"{how.high:g}: name the range by --scale=LOW,HIGH."
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
    rated = annotations.resample(traces.time, flat, at_times, step)
    return targets, rated.reshape(len(at_times), *traces.raters.shape[1:])


def unlabelled(end: float, step: float, raters: int) -> Traces:
    """A recording without labels, on a grid of `step` seconds up to its end."""
    time = np.arange(max(1, int(np.floor(end / step + 1e-6)) + 1)) * step
    missing = np.full((len(time), max(1, raters), 2), np.nan)
    return Traces(time, missing[:, 0], missing, "")
