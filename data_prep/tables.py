"""Tables that people hand in: text in any common encoding, with any common delimiter and decimal sign.

What is unmistakable is understood, and a note says so. What could mean two things is refused with the remedy.
"""

import codecs
import csv
import dataclasses
import io
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from media.files import LFS_REMEDY, is_lfs_pointer

DELIMITERS = ",;\t|"
MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "-", "?"))
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LONGEST_CELL = 1 << 30  # csv's own limit, 128 KB, is shorter than some lists of landmarks
_SEPARATOR = re.compile(r"sep=(.)\r?\n")
_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)")


class TableError(ValueError):
    """A table that cannot be understood; the message says where and what to do, without the file's name."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
      header: names of the columns, stripped.
      rows: (line number, one stripped cell per column); rows without any text are left out.
      comma: whether numbers have a decimal comma.
      notes: what was understood that is not plain CSV.
    """

    header: list[str]
    rows: list[tuple[int, list[str]]]
    comma: bool
    notes: list[str]

    def number(self, cell: str) -> float:
        """Reads a number; NaN if the cell is empty or says that the value is missing.

        Raises:
          TableError: it is no finite number.
        """
        if cell.lower() in MISSING:
            return math.nan
        try:
            value = float(cell.replace(",", ".") if self.comma else cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in cell:
            raise TableError(f"{cell!r} is not a number")
        return value

    def seconds(self, cell: str) -> float:
        """Reads a time: a number, or hours:minutes:seconds, or minutes:seconds; NaN if it is missing."""
        text = cell.replace(",", ".") if self.comma else cell
        if clock := _CLOCK.fullmatch(text):
            hours, minutes, seconds = clock.groups()
            if float(seconds) < 60 and (hours is None or int(minutes) < 60):
                return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
        if ":" in text:
            raise TableError(f"{cell!r} is not a time: write seconds, or hours:minutes:seconds")
        return self.number(cell)


def decode(data: bytes) -> tuple[str, str]:
    """Returns the text of a file and, if it is not UTF-8, a note on its encoding.

    Raises:
      TableError: it is no text.
    """
    if is_lfs_pointer(data):
        raise TableError(LFS_REMEDY)
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _text(data, encoding), "" if encoding == "utf-8-sig" else "read as UTF-16"
    if b"\0" in data[:1024]:
        odd = data[1:1024:2].count(0) > data[0:1024:2].count(0)
        return _text(data, "utf-16-le" if odd else "utf-16-be"), "read as UTF-16"
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return _text(data, "cp1252"), "not UTF-8, read as Windows-1252"


def _text(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(f"it is no text ({error}): save it as CSV in UTF-8") from error
    if "\0" in text:
        raise TableError("it is no text: save it as CSV in UTF-8")
    return text


def cells(lines: Iterable[str], delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells) of each row that has a cell.

    Raises:
      TableError: the csv module refuses a row.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TableError(f"line {reader.line_num}: {error}") from error
        if row:
            yield reader.line_num, row


def read(path: pathlib.Path, delimiter: str | None = None, ragged: bool = False) -> Table:
    """Reads a table with a header.

    Args:
      path: the file.
      delimiter: None = the most frequent one in the header.
      ragged: whether a row may end early; the cells that it lacks are then empty.

    Raises:
      OSError: the file cannot be read.
      TableError: it cannot be understood.
    """
    text, note = decode(path.read_bytes())
    notes = [note] if note else []
    if named := _SEPARATOR.match(text):  # Excel's own first line
        delimiter, text = named[1], text[named.end() :]
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    if delimiter is None:
        delimiter = max(DELIMITERS, key=first.count)
        if delimiter != "," and first.count(delimiter):
            notes.append(f"its columns are separated by {'tabs' if delimiter == chr(9) else delimiter}")
    found = [
        (number, [cell.strip() for cell in row]) for number, row in cells(io.StringIO(text, newline=""), delimiter)
    ]
    found = [(number, row) for number, row in found if any(row)]
    if not found:
        raise TableError("it is empty")
    header = found[0][1]
    while not header[-1]:
        header.pop()
    rows = [(number, _fitted(number, row, len(header), ragged)) for number, row in found[1:]]
    comma = decimal_comma(rows, delimiter)
    if comma:
        notes.append("its numbers have a decimal comma")
    return Table(header, rows, comma, notes)


def _fitted(number: int, row: list[str], columns: int, ragged: bool) -> list[str]:
    if (len(row) < columns and not ragged) or any(row[columns:]):
        raise TableError(f"line {number}: {len(row)} cells for {columns} columns")
    return [*row, *[""] * (columns - len(row))][:columns]


def decimal_comma(rows: Sequence[tuple[int, list[str]]], delimiter: str) -> bool:
    """Whether numbers are written with a decimal comma.

    Raises:
      TableError: the commas could also separate thousands.
    """
    written = [(number, cell) for number, row in rows for cell in row if "," in cell and _COMMA.fullmatch(cell)]
    if not written:
        return False
    number, cell = written[0]
    if all(_THOUSANDS.fullmatch(text) for _, text in written):
        raise TableError(f"line {number}: {cell!r} could be a decimal or thousands: write numbers with a decimal point")
    if delimiter != "," and any(re.fullmatch(r"[+-]?\d+\.\d+", cell) for _, row in rows for cell in row):
        raise TableError(
            f"line {number}: {cell!r} has a decimal comma, other numbers a point: use the point throughout"
        )
    return True


# Names of the column of times, with the factor that makes seconds; 0 for frame numbers.
_BASES = ("time", "times", "timestamp", "timestamps", "frametime", "frame time", "")
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("frame", "frames", "frame number", "frame no", "frame index"), "frames"),
}
SECONDS = {"s": 1.0, "ms": 0.001, "min": 60.0}
_TIME = re.compile(rf"(?P<base>[a-z ]*?)[ _.,\-/]*[(\[]?(?:in )?(?P<unit>{'|'.join(_UNITS)})?[)\]]?")


def time_unit(name: str) -> str | None:
    """The unit of times in a column's name: "" if the name has none, None if it is not a column of times."""
    text = " ".join(name.lower().replace("_", " ").split())
    found = _TIME.fullmatch(text)
    if text in _BASES and text:
        return ""
    if not found or found["base"].strip() not in _BASES or not found["unit"]:
        return None
    if not found["base"].strip() and found["unit"] in ("s", "min", "mins"):  # too short to mean anything
        return None
    return _UNITS[found["unit"]]
