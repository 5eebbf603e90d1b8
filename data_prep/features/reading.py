"""Reads the rows of one recording, whatever the format of its file."""

import collections
import functools
import os
import pathlib
import re
from collections.abc import Callable

import numpy as np

from data_prep import tables
from data_prep.features import arrays, delimited
from data_prep.features.layout import Layout, layout_of, select
from data_prep.features.rows import Columns, Part, Rows, columns_of, listed
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media import video
from media.files import LFS_REMEDY, points_to_lfs

TEXT = (".csv", ".tsv", ".txt", ".arff", ".fex")
SUFFIXES = (*TEXT, *arrays.SUFFIXES)
# What the names of one recording may end in: those of its tables, and of what they were extracted from.
OF_RECORDINGS = frozenset((*SUFFIXES, *video.SUFFIXES, *video.SOUND_SUFFIXES, *video.IMAGE_SUFFIXES))
_DAYS = re.compile(r"(\d+) days? ")


@functools.lru_cache(maxsize=4096)
def _layout(path: str, header: str, state: tuple[int, int]) -> Layout:
    del state  # a file that changed is read again
    return layout_of(pathlib.Path(path), header)


def layout(path: str, spec: TableSpec) -> Layout:
    """How a text table is written; remembered while the file stays as it is."""
    status = os.stat(path)
    return _layout(path, spec.header, (status.st_size, status.st_mtime_ns))


def recordings(path: pathlib.Path, spec: TableSpec, notes: list[str]) -> dict[str, Part]:
    """The recordings in one file by their names; under "" if it holds one, whose name is the file's.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood.
    """
    if points_to_lfs(path):
        raise TableError(LFS_REMEDY)
    if path.suffix.lower() in arrays.SUFFIXES:
        return {name: Part(str(path), None, name) for name in arrays.members(path, spec)}
    form = layout(str(path), spec)
    place, understood = select(form, spec)
    notes += [note for note in (*form.notes, *understood) if note not in notes]
    runs = {} if place.key is None else delimited.recordings(path, form, place.key)
    if len(runs.keys() - {""}) < 2:
        return {"": Part(str(path))}
    if "" in runs:
        raise TableError(f"line {runs[''][0][2]}: the recording's name is missing: fill it in")
    return {name: Part(str(path), tuple(ranges)) for name, ranges in runs.items()}


def feature_names(part: Part, spec: TableSpec) -> list[str]:
    """Names of the features in a part's table.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood.
    """
    path = pathlib.Path(part.path)
    if path.suffix.lower() in (".parquet", ".pq"):
        return columns_of(arrays.parquet_columns(path), spec).feature_names
    if path.suffix.lower() in arrays.SUFFIXES:
        return columns_of(arrays.read(part, spec).names, spec).feature_names
    return select(layout(part.path, spec), spec)[0].feature_names


def read(part: Part, spec: TableSpec) -> Rows:
    """Reads the rows of one recording.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood; the line is named.
      UserError: a package is missing.
    """
    if pathlib.Path(part.path).suffix.lower() in arrays.SUFFIXES:
        return _arrays(part, spec)
    return _text(part, spec, "")[""]


def read_by(part: Part, spec: TableSpec, column: str) -> dict[str, Rows]:
    """Reads the rows of one recording apart by the text in a column, such as the rater's name.

    Raises:
      TableError: a row with values has no such text.
    """
    return _text(part, spec, column)


def _arrays(part: Part, spec: TableSpec) -> Rows:
    found = arrays.read(part, spec)
    names = found.names
    places = list(range(len(names)))

    def line(row: int) -> str:
        return f"row {row + 1}: "

    if pathlib.Path(part.path).suffix.lower() not in (".parquet", ".pq"):
        places = list(columns_of(names, spec).features)
    values = np.ascontiguousarray(found.values[:, places], np.float32)
    time = np.full(len(values), np.nan)
    if found.time is not None:
        time = np.asarray(found.time, np.float64) * tables.SECONDS[spec.unit or "s"]
    return _finish(values, time, found.confidence, found.success, line, spec, [names[i] for i in places])


def _text(part: Part, spec: TableSpec, by: str) -> dict[str, Rows]:
    form = layout(part.path, spec)
    place, _ = select(form, spec)  # its notes are those of `recordings`
    if not place.features:
        raise TableError(f"it has no column of features (it has {listed(form.names)}): choose some by cols=")
    named = form.names.index(by) if by else None
    times = (place.time, place.end, place.frame, place.confidence, place.success, named)
    read = collections.defaultdict(list)
    wanted = [*place.features, *(p for p in times if p is not None)]
    for block in delimited.blocks(part, form, wanted, named):
        read["values"].append(delimited.numbers(block, place.features, form))
        read["time"].append(_times(block, place, spec, form))
        for name in ("confidence", "success"):
            if (at := getattr(place, name)) is not None:
                read[name].append(delimited.column(block, at, form))
        if named is not None:
            read["by"].append(block.data[named].fillna("").astype(str).str.strip().to_numpy(object))
        read["lines"].append(block.lines)
    if not read:
        raise TableError("it has no row: remove the file, or fill it in")
    joined = {name: np.concatenate(parts) for name, parts in read.items()}

    def line(row: int) -> str:
        return f"line {joined['lines'][row]}: "

    groups = {"": np.arange(len(joined["values"]))}
    if by:
        nameless = np.flatnonzero((joined["by"] == "") & np.isfinite(joined["values"]).any(axis=1))
        if len(nameless):
            raise TableError(f"{line(int(nameless[0]))}column {by!r} is empty: fill it in, or remove the row")
        groups = {str(name): np.flatnonzero(joined["by"] == name) for name in np.unique(joined["by"]) if name}
    return {name: _group(joined, rows, line, spec, place.feature_names) for name, rows in groups.items()}


def _group(
    joined: dict[str, np.ndarray],
    rows: np.ndarray,
    line: Callable[[int], str],
    spec: TableSpec,
    names: list[str],
) -> Rows:
    values, time = joined["values"][rows], joined["time"][rows]
    confidence, success = (joined[name][rows] if name in joined else None for name in ("confidence", "success"))
    return _finish(values, time, confidence, success, lambda row: line(int(rows[row])), spec, names)


def _times(block: delimited.Block, place: Columns, spec: TableSpec, form: Layout) -> np.ndarray:
    """Times of some rows, s; NaN if the table has none."""
    if place.time is None:
        if place.frame is None:
            return np.full(len(block.data), np.nan)
        frames = delimited.column(block, place.frame, form)
        if not spec.rate:
            raise TableError(
                f"it has frame numbers and no times: give its frames per second, as in {spec.path}:rate=25"
            )
        return frames / spec.rate
    time = _clock(block, place.time, spec, form)
    return time if place.end is None else (time + _clock(block, place.end, spec, form)) / 2


def _clock(block: delimited.Block, place: int, spec: TableSpec, form: Layout) -> np.ndarray:
    cells = block.data[place]
    if cells.dtype.kind in "fiub" or not cells.astype(str).str.contains(":").any():
        unit = spec.unit or tables.time_unit(form.names[place]) or "s"
        return delimited.column(block, place, form) * tables.SECONDS.get(unit, 1.0)
    reader, out = tables.Table([], [], form.decimal == ",", []), []
    for row, cell in enumerate(cells.astype(str)):
        days = _DAYS.match(cell)  # a Timedelta of pandas, as opensmile writes it
        try:
            out.append(reader.seconds(cell[days.end() :] if days else cell) + 86400 * (int(days[1]) if days else 0))
        except TableError as error:
            raise TableError(f"line {block.lines[row]}: {error}") from error
    return np.array(out)


def _finish(
    values: np.ndarray,
    time: np.ndarray,
    confidence: np.ndarray | None,
    success: np.ndarray | None,
    line: Callable[[int], str],
    spec: TableSpec,
    names: list[str],
) -> Rows:
    """Checks and orders the times, and masks rows that cannot be used.

    Raises:
      TableError: a column is empty, the times do not rise, or one stands twice.
    """
    notes: list[str] = []
    if not np.isnan(spec.missing):
        values = np.where(values == np.float32(spec.missing), np.float32(np.nan), values)
    finite = np.isfinite(values)
    empty = ~finite.any(axis=1)
    if len(bare := np.flatnonzero(~finite.any(axis=0))) and not empty.all():
        name = names[bare[0]]
        raise TableError(f"column {name!r} holds no number at all: leave it out by cols=!{name}")
    valid = finite.all(axis=1)
    if confidence is not None:
        valid &= np.nan_to_num(confidence) >= spec.min_confidence
    if success is not None:
        valid &= np.nan_to_num(success) > 0
    if spec.zeros == "yes":
        valid &= (values != 0).any(axis=1)
    if np.isnan(time).all():
        order = np.arange(len(values))[: _last(~empty)]
        known = np.arange(len(order)) / spec.rate + spec.offset if spec.rate else None
        return Rows(known, values[order], valid[order], line)
    lost = np.isnan(time)
    if (lost & ~empty).any():
        raise TableError(f"{line(int(np.flatnonzero(lost & ~empty)[0]))}the time is missing: fill it in")
    order = np.flatnonzero(~lost)
    steps = np.diff(time[order])
    if (steps < 0).any() and not (_several_faces(confidence, time[order])):
        if spec.sort != "yes":
            bad = int(np.flatnonzero(steps < 0)[0])
            before, after = order[bad], order[bad + 1]
            raise TableError(
                f"{line(int(after))}time {time[after]:g} comes after {time[before]:g}: sort the rows, or add sort=yes"
            )
        notes.append("its rows are sorted by time")
    order = order[np.argsort(time[order], kind="stable")]
    same = np.flatnonzero(np.diff(time[order]) == 0)
    if len(same):
        if confidence is None:
            row = order[same[0] + 1]
            raise TableError(f"{line(int(row))}time {time[row]:g} stands twice: remove one of the rows")
        order = _surest(order, time, confidence)
        notes.append("where several faces share a time, the most confident one is used")
    return Rows(time[order] + spec.offset, values[order], valid[order], lambda r: line(int(order[r])), tuple(notes))


def _several_faces(confidence: np.ndarray | None, time: np.ndarray) -> bool:
    """Whether one face's rows follow another's, so that the times begin anew."""
    return confidence is not None and len(np.unique(time)) < len(time)


def _last(used: np.ndarray) -> int:
    """The number of rows up to the last that is used."""
    places = np.flatnonzero(used)
    return int(places[-1]) + 1 if len(places) else 0


def _surest(order: np.ndarray, time: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Of the rows of each time, the first with the highest confidence."""
    ranked = order[np.lexsort((-np.nan_to_num(confidence[order]), time[order]))]
    first = np.concatenate([[True], np.diff(time[ranked]) > 0])
    return ranked[first]
