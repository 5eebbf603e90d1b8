"""How a text table is written: encoding, delimiter, decimal sign, header; CSV and ARFF."""

import csv
import dataclasses
import io
import itertools
import pathlib
import re
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from data_prep import tables
from data_prep.features.rows import Columns, columns_of
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError

SAMPLE = 50  # rows by which the layout of a table is judged


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a text table is written.

    Attributes:
      names: of the columns.
      begin: first byte of the rows; line: number of the first row's line.
      delimiter, quote, decimal, encoding: as the csv module and pandas name them.
      spare: whether rows end with one more, empty cell than there are columns.
      sample: cells of the first rows.
      notes: what was understood that is not plain CSV.
    """

    names: tuple[str, ...]
    begin: int
    line: int
    delimiter: str
    quote: str
    decimal: str
    encoding: str
    spare: bool
    sample: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def headless(self) -> bool:
        """Whether no line names the columns."""
        return self.names == tuple(str(place + 1) for place in range(len(self.names)))


def opened(path: pathlib.Path) -> tuple[BinaryIO, str, str]:
    """Opens a table as bytes of an encoding in which a line break is one byte: the file, the encoding and a note.

    UTF-16 is rewritten as UTF-8 in memory; any other file is read where it lies.
    """
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    head = file.read(1 << 16)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:1024]:
        file.close()
        text, note = tables.decode(path.read_bytes())
        return io.BytesIO(text.encode()), "utf-8", note
    file.seek(0)
    # The last bytes may be half a character.
    whole = head if len(head) < 1 << 16 else head[: max(head.rfind(b"\n"), 0)]
    text, note = tables.decode(whole)
    if head.startswith(b"\xef\xbb\xbf"):
        file.seek(3)
    return file, "cp1252" if note else "utf-8", note


def layout_of(path: pathlib.Path, header: str = "") -> Layout:
    """Finds out how a table is written from its first lines.

    Raises:
      OSError: it cannot be read.
      TableError: it cannot be understood.
    """
    file, encoding, note = opened(path)
    with file:
        notes = [note] if note else []
        begin = file.tell()
        if path.suffix.lower() == ".arff":
            return _arff(file, encoding, notes)
        number, given = 0, ""
        while True:
            raw = file.readline()
            number += 1
            if not raw:
                raise TableError("it is empty")
            line = raw.decode(encoding)
            if re.fullmatch("sep=.", line.strip()):  # Excel's own first line
                given = line.strip()[-1]
            elif line.strip():
                break
            begin = file.tell()
        rows = [text.decode(encoding) for text in itertools.islice(file, SAMPLE)]
        delimiter = given or _delimiter(line, rows)
        quote = "'" if line.lstrip()[:1] == "'" or (rows and rows[0].lstrip()[:1] == "'") else '"'
        first = cells_of(line, delimiter, quote)
        sample = [cells for text in rows if any(cells := cells_of(text, delimiter, quote))]
        decimal = _decimal([first, *sample], delimiter, number, notes)
        named = header == "yes" or (header != "no" and not _are_numbers(first, decimal))
        names = _named(first) if named else [str(place + 1) for place in range(len(first))]
        if named:
            begin += len(raw)
            number += 1
        else:
            notes.append("it has no header: its columns are called 1, 2, …")
            sample = [first, *sample]
        spare = bool(sample) and len(sample[0]) == len(names) + 1 and not sample[0][-1]
        rows_seen = tuple(tuple(cells) for cells in sample)
        return Layout(tuple(names), begin, number, delimiter, quote, decimal, encoding, spare, rows_seen, tuple(notes))


def _named(cells: Sequence[str]) -> list[str]:
    names = list(cells)
    while len(names) > 1 and not names[-1]:
        names.pop()
    twice = next((name for name in names if name and names.count(name) > 1), None) if len(names) < 1000 else None
    if twice is None and len(set(names) - {""}) < len([name for name in names if name]):
        twice = next(name for name in names if name and names.count(name) > 1)
    if twice:
        raise TableError(f"line 1: two columns are called {twice!r}; rename one")
    return names


def _delimiter(line: str, rows: Sequence[str]) -> str:
    """The character that splits the first line, and the next as often."""
    counts = {one: line.count(one) for one in tables.DELIMITERS}
    if rows and (counts[";"] or counts["\t"]) and counts[","]:  # decimal commas, or commas in names
        for one in (";", "\t"):
            if counts[one] and counts[one] == rows[0].count(one):
                return one
    return max(tables.DELIMITERS, key=lambda one: counts[one])


def cells_of(line: str, delimiter: str, quote: str) -> list[str]:
    """The cells of a line, stripped."""
    found = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, quotechar=quote, skipinitialspace=True), [])
    return [cell.strip() for cell in found]


def _decimal(rows: Sequence[Sequence[str]], delimiter: str, number: int, notes: list[str]) -> str:
    if delimiter == ",":
        return "."
    if tables.decimal_comma([(number + i, list(row)) for i, row in enumerate(rows)], delimiter):
        notes.append("its numbers have a decimal comma")
        return ","
    return "."


def _are_numbers(cells: Sequence[str], decimal: str) -> bool:
    """Whether a first line is a row: all but its first cell are numbers."""
    rest = cells[1:] if len(cells) > 1 else cells
    return all(_is_number(cell, decimal) for cell in rest if cell) and any(rest)


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return cell.lower() in tables.MISSING
    return True


_ATTRIBUTE = re.compile(r"@attribute\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)", re.IGNORECASE)


def _arff(file: BinaryIO, encoding: str, notes: list[str]) -> Layout:
    names: list[str] = []
    for number, raw in enumerate(iter(file.readline, b""), 1):
        line = raw.decode(encoding, "replace").strip()
        if found := _ATTRIBUTE.match(line):
            names.append(found[1].strip("'\""))
        elif line.lower().startswith("@data"):
            begin = file.tell()
            first = file.readline()
            while first and (not first.strip() or first.lstrip().startswith(b"%")):
                begin, number = file.tell(), number + 1
                first = file.readline()
            if not names:
                break
            if first.lstrip().startswith(b"{"):
                raise TableError(f"line {number + 1}: it is a sparse ARFF file: save it with a value in every column")
            quote = '"' if b'"' in first else "'"
            return Layout(tuple(names), begin, number + 1, ",", quote, ".", encoding, False, (), tuple(notes))
    raise TableError("it is no ARFF file: it lacks @attribute or @data lines")


def select(form: Layout, spec: TableSpec) -> tuple[Columns, list[str]]:
    """What the columns of a text table are, and notes.

    In a table without a header the first column holds names if its cells are no numbers, and the next one times if it
    rises evenly and no rate is given.

    Raises:
      TableError: a column that `spec` names is missing.
    """
    if not form.headless or not form.sample:
        return columns_of(form.names, spec), []
    notes, key, time = [], spec.key, spec.time
    if not key and not _is_number(form.sample[0][0], form.decimal):
        key = "1"
        notes.append("column 1 is taken as the recordings' names")
    place = 1 if key == "1" else 0
    if not time and not spec.rate and _rises_evenly(form, place):
        time = str(place + 1)
        notes.append(f"column {time} rises evenly and is taken as times in seconds")
    return columns_of(form.names, dataclasses.replace(spec, key=key, time=time)), notes


def _rises_evenly(form: Layout, place: int) -> bool:
    try:
        times = np.array([float(cells[place].replace(form.decimal, ".")) for cells in form.sample[:8]])
    except (ValueError, IndexError):
        return False
    steps = np.diff(times)
    return len(steps) > 0 and 0 <= times[0] < 60 and bool(steps.min() > 0) and bool(np.ptp(steps) <= 0.1 * steps.mean())
