"""One recording: its tables on the times of its labels, as a record."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data_prep.features import align, labels, reading
from data_prep.features.rows import Part, Rows, at
from data_prep.features.specs import StreamSpec, TableSpec
from data_prep.tables import TableError
from media.errors import UserError

_OTHER_UNIT = 20.0  # features that last so many times as long as the labels have times in another unit
_LOW_COVERAGE = 0.5


class Settings(Protocol):
    """The options that say how tables and labels meet."""

    align: str
    window: float
    rate: float
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of one recording, and how it was to be read."""

    spec: TableSpec
    part: Part
    rows: Rows


def read(spec: TableSpec, part: Part) -> Table:
    """Reads a table.

    Raises:
      UserError: it cannot be used; file, line and remedy are named.
    """
    try:
        return Table(spec, part, reading.read(part, spec))
    except TableError as error:
        raise at(part.path, error) from error
    except OSError as error:
        raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error


def extent(tables: Mapping[str, Sequence[Table | None]], step: float) -> tuple[float, float]:
    """Step and end, s, of the records of a recording without traces: `step`, or that of the first table with times.

    Raises:
      UserError: no table has times.
    """
    timed = [table.rows.time for row in tables.values() for table in row if table and table.rows.time is not None]
    timed = [time for time in timed if len(time)]
    steps = [step] if step else [align.step_of(time) for time in timed]
    if not timed or not any(steps):
        some = next((table.part.path for row in tables.values() for table in row if table), "the recording")
        raise UserError(f"{some}: it has no times: add a column of times in seconds, or rate=HZ.")
    return next(one for one in steps if one), max(float(time[-1]) for time in timed)


def record(
    name: str,
    payload: Mapping[str, Any],
    streams: Sequence[StreamSpec],
    columns: Mapping[str, Sequence[str]],
    tables: Mapping[str, Sequence[Table | None]],
    traces: labels.Traces,
    settings: Settings,
) -> dict[str, Any]:
    """The record of a recording.

    Besides the fields of the schema it has `flags`, which the card counts, and `constant`: the value of each column
    that does not change in this recording, by "STREAM:COLUMN".

    Raises:
      UserError: features and labels do not belong together.
    """
    time = labels.grid(traces.time, settings.rate)
    targets, raters = labels.resampled(traces, time)
    known = np.isfinite(targets).all(axis=1)
    step = align.step_of(time)
    flags: list[str] = []
    constant: dict[str, float] = {}
    fields: dict[str, np.ndarray] = {}
    for stream in streams:
        values, mask, said = _stream(stream, len(columns[stream.name]), tables[stream.name], time, traces, settings)
        fields[stream.name], fields[f"{stream.name}_mask"] = values, mask
        flags += said
        seen = values[mask]
        if len(seen):
            same = np.flatnonzero(np.ptp(seen, axis=0) == 0)
            constant |= {f"{stream.name}:{columns[stream.name][int(i)]}": float(seen[0, i]) for i in same}
    return {
        "recording": name,
        "subject": payload["subject"],
        "group": payload["group"],
        "fps": np.float32(1 / step if step else settings.rate or 1.0),
        "time": time.astype(np.float32),
        "targets": np.where(known[:, None], targets, 0).astype(np.float32),
        "target_mask": known,
        "raters": raters.astype(np.float32),
        "label": payload["label"],
        **fields,
        "flags": flags,  # these two are for the card only: the schema has no such fields
        "constant": constant,
    }


def _stream(
    stream: StreamSpec,
    dim: int,
    tables: Sequence[Table | None],
    time: np.ndarray,
    traces: labels.Traces,
    settings: Settings,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A stream's features float32 `[T, D]`, its mask bool `[T]`, all False if a table is missing, and flags."""
    values, masks = [], []
    flags: list[str] = []
    for table in tables:
        if table is None:
            return np.zeros((len(time), dim), np.float32), np.zeros(len(time), bool), [f"no {stream.name}"]
        try:
            rows = _timed(table, stream.name, traces, flags)
            _check_span(rows, stream.name, traces, settings, flags)
        except TableError as error:
            raise at(table.part.path, error) from error
        spec = table.spec
        how, window = spec.align or settings.align, spec.window or settings.window
        found, mask = align.to_times(rows.time, rows.values, rows.valid, time, how, window, spec.max_gap)  # type: ignore[arg-type]
        values.append(found)
        masks.append(mask)
        flags += [f"{stream.name}: {note}" for note in rows.notes]
    mask = np.logical_and.reduce(masks)
    joined = np.where(mask[:, None], np.concatenate(values, axis=1), np.float32(0))
    if mask.mean() < _LOW_COVERAGE:
        flags.append(f"{stream.name} present in less than half of the frames")
    return joined, mask, flags


def _timed(table: Table, name: str, traces: labels.Traces, flags: list[str]) -> Rows:
    """The rows with times; rows without belong to the labels one by one if there are as many."""
    rows = table.rows
    if rows.time is not None:
        return rows
    if len(rows.values) == len(traces.time):
        flags.append(f"{name}: rows without times are taken as one per label")
        return dataclasses.replace(rows, time=traces.time)
    raise TableError(
        f"stream {name} has {len(rows.values)} rows without times for {len(traces.time)} labels: add a column of times "
        "in seconds, or rate=HZ"
    )


def _check_span(rows: Rows, name: str, traces: labels.Traces, settings: Settings, flags: list[str]) -> None:
    """Adds a flag if the features begin late.

    Raises:
      TableError: they end before the labels, or have times in another unit.
    """
    time, labelled = rows.time, np.flatnonzero(np.isfinite(traces.targets).all(axis=1))
    if time is None or not len(time):
        raise TableError(f"stream {name} has no row: remove the file, or fill it in")
    if not len(labelled):
        return
    if time[0] - traces.time[labelled[0]] > max(settings.tolerance, align.step_of(time)):
        flags.append(f"{name} begins later than the labels")
    end = float(traces.time[labelled[-1]])
    where = rows.line(len(time) - 1)
    if time[-1] > _OTHER_UNIT * max(end, 1.0):
        raise TableError(
            f"{where}stream {name} ends at {time[-1]:g} s, the labels at {end:g} s: name the unit of its times, such "
            "as unit=ms"
        )
    late = end - float(time[-1]) - align.step_of(time)
    if late > settings.tolerance:
        raise TableError(
            f"{where}stream {name} ends at {time[-1]:g} s, {late:.2f} s before the labels of {traces.last}check its "
            f"rate and unit, or give --tolerance={np.ceil(late):g}"
        )
