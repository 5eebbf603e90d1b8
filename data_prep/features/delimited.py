"""The rows of text tables, CSV and ARFF, a recording at a time."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_prep import tables
from data_prep.features.layout import Layout, cells_of, opened
from data_prep.features.rows import Part
from data_prep.tables import TableError

if TYPE_CHECKING:
    import pandas as pd

MISSING = sorted(tables.MISSING | {"NaN", "NA", "N/A", "NULL", "None", "NAN", "Null"})
_BLOCK = 8 << 20  # bytes of text that are parsed at once


def recordings(path: pathlib.Path, form: Layout, key: int) -> dict[str, list[tuple[int, int, int]]]:
    """The runs of rows of each recording: (first byte, last byte + 1, number of the first line), in the file's order.

    The time is linear in the file's size, and memory holds one line.
    """
    delimiter, out = form.delimiter.encode(), {}  # type: tuple[bytes, dict[str, list[tuple[int, int, int]]]]
    blank = delimiter + b" \t\r\n\"'"  # a row of empty cells belongs to no recording
    file, *_ = opened(path)
    with file:
        file.seek(form.begin)
        begin = offset = form.begin
        first = number = form.line
        current: bytes | None = None

        def close() -> None:
            if current is not None:
                out.setdefault(_plain(current, form), []).append((begin, offset, first))

        for line in file:
            cells = line.split(delimiter, key + 1)
            if len(cells) > key:
                cell = cells[key]
                if cell != current and line.strip(blank):
                    close()
                    begin, first, current = offset, number, cell
            offset += len(line)
            number += 1
        close()
    return out


def _plain(cell: bytes, form: Layout) -> str:
    return cell.decode(form.encoding, "replace").strip().strip("'\"").strip()


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a table: a column per place that was wanted, and the number of each row's line `[N]`."""

    data: "pd.DataFrame"
    lines: np.ndarray


def blocks(part: Part, form: Layout, wanted: Sequence[int], text: int | None = None) -> Iterator[Block]:
    """Yields the rows of a part in blocks of a few MB; the column at `text` is read as it is written.

    Raises:
      OSError: the file cannot be read.
      TableError: a row has more or fewer cells than there are columns, or a file is not in its encoding.
    """
    for rows, lines in _texts(part, form):
        if rows.strip():
            data = _parse(rows, form, wanted, lines, text)
            # A line break in a quoted cell makes one row of two lines.
            yield Block(data, lines if len(lines) == len(data) else lines[0] + np.arange(len(data)))


def _texts(part: Part, form: Layout) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yields whole lines of a part, about `_BLOCK` bytes at once, and their numbers."""
    path = pathlib.Path(part.path)
    file, *_ = opened(path)
    gathered: list[bytes] = []
    numbers: list[np.ndarray] = []
    size = 0
    with file:
        end = file.seek(0, os.SEEK_END)
        for begin, stop, number in part.ranges or ((form.begin, end, form.line),):
            file.seek(begin)
            left = stop - begin
            while left > 0 and (text := file.read(min(_BLOCK, left))):
                if len(text) < left:
                    text += file.readline()  # to the end of its last line
                left -= len(text)
                count = text.count(b"\n") + (not text.endswith(b"\n"))
                gathered.append(text if text.endswith(b"\n") else text + b"\n")
                numbers.append(number + np.arange(count))
                number += count
                size += len(text)
                if size >= _BLOCK:
                    yield b"".join(gathered), np.concatenate(numbers)
                    gathered, numbers, size = [], [], 0
    if gathered:
        yield b"".join(gathered), np.concatenate(numbers)


def _parse(block: bytes, form: Layout, wanted: Sequence[int], lines: np.ndarray, text: int | None) -> "pd.DataFrame":
    import pandas as pd  # slow to import, and no other corpus needs it

    width = len(form.names) + form.spare
    count, delimiter = width - 1, form.delimiter.encode()
    if any(row.count(delimiter) != count for row in block.split(b"\n")[:-1]) and (fault := _fault(block, form, lines)):
        raise fault  # pandas fills up short rows and cuts off long ones
    names = list(range(width))
    try:
        return pd.read_csv(
            io.BytesIO(block),
            header=None,
            names=names,
            usecols=sorted(set(wanted)),
            dtype=None if text is None else {text: str},
            sep=form.delimiter,
            quotechar=form.quote,
            decimal=form.decimal,
            encoding=form.encoding,
            na_values=MISSING,
            skip_blank_lines=False,
            skipinitialspace=True,
            index_col=False,
            low_memory=False,
        )
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        unknown = TableError(f"line {lines[0]} or one below it cannot be read: save the file as CSV again")
        raise _fault(block, form, lines) or unknown from error


def _fault(block: bytes, form: Layout, lines: np.ndarray) -> TableError | None:
    """Finds the first line that cannot be read, or has more or fewer cells than there are columns."""
    for number, raw in zip(lines, block.split(b"\n"), strict=False):
        try:
            cells = cells_of(raw.decode(form.encoding), form.delimiter, form.quote)
        except UnicodeDecodeError as error:
            return TableError(f"line {number}: it is not {form.encoding} ({error}): save the file as UTF-8")
        columns = len(form.names)
        if any(cells[columns:]) or (any(cells) and len(cells) < columns):
            return TableError(f"line {number}: {len(cells)} cells for {columns} columns: fix the line")
    return None


def numbers(block: Block, places: Sequence[int], form: Layout) -> np.ndarray:
    """The columns at some places as float32 `[N, D]`, NaN for empty cells.

    Raises:
      TableError: a column holds text.
    """
    chosen = block.data[list(places)]
    if all(kind.kind in "fiub" for kind in chosen.dtypes):
        return chosen.to_numpy(np.float32)
    return np.stack([column(block, place, form) for place in places], axis=1).astype(np.float32)


def column(block: Block, place: int, form: Layout) -> np.ndarray:
    """One column as floats `[N]`, NaN for empty cells.

    Raises:
      TableError: it holds text; its first line is named.
    """
    import pandas as pd

    values = block.data[place]
    if values.dtype.kind in "fiub":
        return values.to_numpy(np.float64)
    converted = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero(converted.isna() & values.notna())
    if len(bad):
        name, text, line = form.names[place], str(values.iloc[bad[0]]), block.lines[bad[0]]
        raise TableError(
            f"line {line}: column {name!r} holds {text!r}, which is no number; leave it out by cols=!{name}"
        )
    return converted.to_numpy(np.float64)
