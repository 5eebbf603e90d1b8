"""`labels.csv` of your own recordings: read, checked and matched to the files that lie in the folder."""

import collections
import dataclasses
import difflib
import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep import tables
from media.errors import UserError
from media.records import CLASSES

SPLITS = ("train", "dev", "test")
COLUMNS = ("file", "label", "subject", "split", "time", "valence", "arousal", "rater")
UNITS = ("auto", *tables.SECONDS, "frames")
# Words for the canonical classes. They are used only if every label of the table is one of them.
_SYNONYMS = {
    **{name: name for name in CLASSES},
    **dict.fromkeys(("happiness", "joy", "joyful"), "happy"),
    **dict.fromkeys(("sadness",), "sad"),
    **dict.fromkeys(("surprised",), "surprise"),
    **dict.fromkeys(("fearful", "afraid"), "fear"),
    **dict.fromkeys(("disgusted",), "disgust"),
    **dict.fromkeys(("angry",), "anger"),
    **dict.fromkeys(("contemptuous",), "contempt"),
}

Trace = list[tuple[float, float, float]]  # (time, valence, arousal), NaN where a value is missing


@dataclasses.dataclass
class Table:
    """The contents of `labels.csv` by file.

    Attributes:
      labels, subjects, splits: where the table says so.
      traces: each rater's lines.
      unit: of the times, a name in `UNITS`; "auto" if the table does not say.
      notes: how the table was understood.
    """

    labels: dict[str, str]
    subjects: dict[str, str]
    splits: dict[str, str]
    traces: dict[str, dict[str, Trace]]
    unit: str
    notes: list[str]

    @functools.cached_property
    def files(self) -> set[str]:
        """Every file that the table names."""
        return {*self.labels, *self.subjects, *self.splits, *self.traces}

    @functools.cached_property
    def classes(self) -> list[str]:
        """The classes in order: the eight canonical ones if they include the table's, otherwise the table's, sorted."""
        found = sorted(set(self.labels.values()))
        return list(CLASSES) if set(found) <= set(CLASSES) else found

    @functools.cached_property
    def raters(self) -> list[str]:
        """Names of the raters, sorted."""
        return sorted({rater for traces in self.traces.values() for rater in traces})


def read_table(path: pathlib.Path, low: float, high: float) -> Table:
    """Reads `labels.csv`, once per state of the file.

    Args:
      path: the table.
      low, high: range of valence and arousal, which is mapped to [-1, 1].

    Raises:
      UserError: a column is missing or a cell cannot be read.
    """
    try:
        status = os.stat(path)
        return _read_table(path, low, high, (status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except tables.TableError as error:
        raise UserError(f"{path}: {error}.") from error


@functools.lru_cache(maxsize=4)
def _read_table(path: pathlib.Path, low: float, high: float, state: tuple[int, int]) -> Table:
    read = tables.read(path, ragged=True)
    place, unit, notes = _columns(read.header)
    timed = "time" in place
    table = Table({}, {}, {}, collections.defaultdict(lambda: collections.defaultdict(list)), unit, read.notes + notes)
    lost = collections.Counter[str]()
    for number, cells in read.rows:
        row = {column: cells[i] for column, i in place.items()}
        name = row["file"]
        if not name:
            raise tables.TableError(f"line {number}: column file is empty; name a file or remove the line")
        _enter(table, number, name, row)
        if timed:
            try:
                line = (read.seconds(row["time"]), read.number(row["valence"]), read.number(row["arousal"]))
            except tables.TableError as error:
                raise tables.TableError(f"line {number}: time, valence or arousal: {error}") from error
            _check_range(number, line[1:], low, high)
            if math.isnan(line[0]):
                if not all(
                    map(math.isnan, line[1:])
                ):  # a row without times and values names the file's subject or split
                    lost["without a time are left out"] += 1
                continue
            if any(map(math.isnan, line[1:])):
                lost["lack valence or arousal and are masked"] += 1
            scaled = (2 * (value - low) / (high - low) - 1 for value in line[1:])
            table.traces[name][row.get("rater", "")].append((line[0], *scaled))  # type: ignore[arg-type]
    table.notes += [f"{count} lines {what}" for what, count in lost.items()]
    table.traces = {
        name: {r: _in_order(name, r, lines) for r, lines in by.items()} for name, by in table.traces.items()
    }
    _unite_labels(table)
    return table


def _columns(header: Sequence[str]) -> tuple[dict[str, int], str, list[str]]:
    """Returns the place of each known column, the unit of the times, and notes.

    Raises:
      TableError: a column is missing.
    """
    place: dict[str, int] = {}
    notes, unit = [], "auto"
    for i, cell in enumerate(header):
        name = " ".join(cell.lower().split())
        found = tables.time_unit(name)
        column = (
            "time"
            if found is not None
            else {"filename": "file", "file name": "file", "file_name": "file"}.get(name, name)
        )
        if column in place and column in COLUMNS:
            raise tables.TableError(f"two columns are {column}: {header[place[column]]!r} and {cell!r}; remove one")
        if column not in COLUMNS:
            near = difflib.get_close_matches(name, [one for one in COLUMNS if one not in place], n=1, cutoff=0.75)
            notes += [f"column {cell!r} is ignored; is it {near[0]!r}?"] if near else []
            continue
        place[column] = i
        if found:
            unit = found
            notes.append(f"column {cell!r} holds times in {'frames' if found == 'frames' else found}")
    traced = {"time", "valence", "arousal"}
    missing = sorted(traced - set(place)) if {*traced, "rater"} & set(place) else []
    if "file" not in place or missing or not {"label", "split", "subject", "time"} & set(place):
        lacks = f"it lacks {' and '.join(missing)}" if missing and "file" in place else f"it has {', '.join(header)}"
        raise tables.TableError(
            "the header must have file,label or file,time,valence,arousal; " + "; ".join([lacks, *notes])
        )
    return place, unit, notes


def _enter(table: Table, number: int, name: str, row: Mapping[str, str]) -> None:
    for column, where in (("label", table.labels), ("subject", table.subjects), ("split", table.splits)):
        value = row.get(column, "")
        if value and where.setdefault(name, value) != value:
            raise tables.TableError(
                f"line {number}: {name} has {column} {value!r}, but had {where[name]!r} in an earlier line"
            )
    if row.get("split") and row["split"] not in SPLITS:
        raise tables.TableError(f"line {number}: split {row['split']!r} is not one of {', '.join(SPLITS)}")


def _check_range(number: int, values: Sequence[float], low: float, high: float) -> None:
    if not all(low <= value <= high or math.isnan(value) for value in values):
        raise tables.TableError(
            f"line {number}: valence and arousal {list(values)} are outside {low:g} to {high:g}: "
            "name their range by --scale=LOW,HIGH"
        )


def _in_order(name: str, rater: str, lines: Trace) -> Trace:
    """Sorts a rater's lines by time; a line that stands twice counts once.

    Raises:
      TableError: two lines of one time differ.
    """
    ordered = sorted(lines, key=lambda line: line[0])
    out: Trace = []
    for line in ordered:
        if out and line[0] == out[-1][0]:
            if not np.array_equal(line, out[-1], equal_nan=True):
                whose = f" by rater {rater!r}" if rater else ""
                raise tables.TableError(
                    f"{name} has two different lines at time {line[0]:g}{whose}: tell raters apart by a column rater"
                )
            continue
        out.append(line)
    return out


def _unite_labels(table: Table) -> None:
    """Writes labels that are synonyms of the canonical classes as these.

    Raises:
      TableError: two labels differ only in case.
    """
    found = sorted(set(table.labels.values()))
    if all(label.casefold() in _SYNONYMS for label in found):
        changed = [f"{label} as {_SYNONYMS[label.casefold()]}" for label in found if label not in CLASSES]
        if changed:
            table.notes.append(f"labels are read as the canonical classes: {', '.join(changed)}")
            table.labels = {name: _SYNONYMS[label.casefold()] for name, label in table.labels.items()}
        return
    by_case: dict[str, str] = {}
    for label in found:
        if by_case.setdefault(label.casefold(), label) != label:
            raise tables.TableError(f"labels {by_case[label.casefold()]!r} and {label!r} differ only in case: use one")
