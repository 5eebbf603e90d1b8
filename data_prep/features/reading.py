"""Reads the rows of one recording, whatever the format of its file."""

import bisect
import collections
import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from data_prep import tables
from data_prep.features import delimited
from data_prep.features.rows import Columns, Part, Rows
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError

TEXT = (".csv", ".tsv", ".txt", ".arff", ".fex")
SUFFIXES = TEXT


@functools.lru_cache(maxsize=4096)
def _layout(path: str, header: str, state: tuple[int, int]) -> delimited.Layout:
    del state  # a file that changed is read again
    return delimited.layout(pathlib.Path(path), header)


def layout(path: str, spec: TableSpec) -> delimited.Layout:
    """How a text table is written; remembered while the file stays as it is."""
    status = os.stat(path)
    return _layout(path, spec.header, (status.st_size, status.st_mtime_ns))


def columns(part: Part, spec: TableSpec) -> Columns:
    """The columns of a part's table.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood.
    """
    return delimited.select(layout(part.path, spec), spec)[0]


def read(part: Part, spec: TableSpec) -> Rows:
    """Reads the rows of one recording.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood; the line is named.
    """
    return _text(part, spec)


def _text(part: Part, spec: TableSpec) -> Rows:
    form = layout(part.path, spec)
    place, notes = delimited.select(form, spec)
    if not place.features:
        raise TableError(f"it has no column of features (it has {', '.join(form.names[:8])})")
    wanted = [p for p in (place.time, place.frame, place.confidence, place.success) if p is not None]
    read = collections.defaultdict(list)
    starts, lines, count = [], [], 0
    for data, number in delimited.blocks(part, form, [*place.features, *wanted]):
        read["values"].append(delimited.numbers(data[list(place.features)], place.features, form, number))
        read["time"].append(_times(data, place, spec, form, number))
        for name in ("confidence", "success"):
            if (at := getattr(place, name)) is not None:
                read[name].append(delimited.column(data, at, form, number))
        starts.append(count)
        lines.append(number)
        count += len(data)
    if not count:
        raise TableError("it has no row")

    def line(row: int) -> str:
        block = bisect.bisect_right(starts, row) - 1
        return f"line {lines[block] + row - starts[block]}: "

    joined = {name: np.concatenate(parts) for name, parts in read.items()}
    return finish(joined["values"], joined["time"], joined.get("confidence"), joined.get("success"), line, spec, notes)


def _times(
    data: "delimited.pd.DataFrame", place: Columns, spec: TableSpec, form: delimited.Layout, number: int
) -> np.ndarray:
    """Times in seconds of some rows; frame numbers if the table has only those; empty if it has neither."""
    if place.time is None:
        if place.frame is None:
            return np.full(len(data), np.nan)
        return delimited.column(data, place.frame, form, number)
    if data[place.time].dtype.kind not in "fiub" and data[place.time].astype(str).str.contains(":").any():
        reader = tables.Table([], [], form.decimal == ",", [])
        return np.array([reader.seconds(str(cell)) for cell in data[place.time]])
    unit = spec.unit or tables.time_unit(form.names[place.time]) or "s"
    return delimited.column(data, place.time, form, number) * tables.SECONDS[unit]


def finish(
    values: np.ndarray,
    time: np.ndarray,
    confidence: np.ndarray | None,
    success: np.ndarray | None,
    line: Callable[[int], str],
    spec: TableSpec,
    notes: list[str],
) -> Rows:
    """Checks and orders the times, and masks rows that cannot be used.

    Raises:
      TableError: the times do not rise, or one stands twice.
    """
    empty = np.isnan(values).all(axis=1)
    finite = np.isfinite(values).all(axis=1)
    valid = finite.copy()
    if confidence is not None:
        valid &= np.nan_to_num(confidence) >= spec.min_confidence
    if success is not None:
        valid &= np.nan_to_num(success) > 0
    order = np.arange(len(values))
    if np.isnan(time).all():
        order = order[: _last(~empty)]
        if spec.rate:
            time = np.arange(len(values)) / spec.rate + spec.offset
        return Rows(time[order] if spec.rate else None, values[order], valid[order], line, tuple(notes))
    lost = np.isnan(time)
    if (lost & ~empty).any():
        raise TableError(f"{line(int(np.flatnonzero(lost & ~empty)[0]))}the time is missing: fill it in")
    order = order[~lost]
    steps = np.diff(time[order])
    if (steps < 0).any():
        if spec.sort != "yes":
            bad = int(np.flatnonzero(steps < 0)[0])
            a, b = order[bad], order[bad + 1]
            raise TableError(
                f"{line(int(b))}time {time[b]:g} comes after {time[a]:g}: sort the rows by time, or add sort=yes"
            )
        order = order[np.argsort(time[order], kind="stable")]
        notes = [*notes, "its rows are sorted by time"]
    same = np.flatnonzero(np.diff(time[order]) == 0)
    if len(same):
        if confidence is None:
            row = order[same[0] + 1]
            raise TableError(f"{line(int(row))}time {time[row]:g} stands twice: remove one of the rows")
        order = _surest(order, time, confidence)
        notes = [*notes, "of several faces at one time the surest is taken"]
    kept = order
    return Rows(time[kept] + spec.offset, values[kept], valid[kept], lambda row: line(int(kept[row])), tuple(notes))


def _last(used: np.ndarray) -> int:
    """The number of rows up to the last that is used."""
    places = np.flatnonzero(used)
    return int(places[-1]) + 1 if len(places) else 0


def _surest(order: np.ndarray, time: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Of the rows of each time, the first with the highest confidence."""
    ranked = order[np.lexsort((-np.nan_to_num(confidence[order]), time[order]))]
    first = np.concatenate([[True], np.diff(time[ranked]) > 0])
    return ranked[first]
