"""The rows of text tables, CSV and ARFF, a recording at a time."""

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
                if cell != current and line.strip():
                    close()
                    begin, first, current = offset, number, cell
            offset += len(line)
            number += 1
        close()
    return out


def _plain(cell: bytes, form: Layout) -> str:
    return cell.decode(form.encoding, "replace").strip().strip("'\"").strip()


def holds_several(path: pathlib.Path, form: Layout, key: int) -> bool:
    """Whether the first and the last row of a table are of different recordings."""
    file, *_ = opened(path)
    delimiter = form.delimiter.encode()

    def name(line: bytes) -> str:
        cells = line.split(delimiter, key + 1)
        return _plain(cells[key], form) if len(cells) > key else ""

    with file:
        file.seek(form.begin)
        first = file.readline()
        size = file.seek(0, os.SEEK_END)
        reach = max(1 << 16, 4 * len(first))
        file.seek(max(form.begin, size - reach))
        lines = [line for line in file.read().splitlines() if line.strip()]
    return bool(lines) and name(first) != name(lines[-1])


def blocks(part: Part, form: Layout, wanted: Sequence[int]) -> Iterator[tuple["pd.DataFrame", int]]:
    """Yields blocks of rows with the wanted columns, each with the number of its first line.

    Raises:
      OSError: the file cannot be read.
      TableError: a row has more cells than there are columns.
    """
    path = pathlib.Path(part.path)
    file, *_ = opened(path)
    with file:
        end = file.seek(0, os.SEEK_END)
        for begin, stop, number in part.ranges or ((form.begin, end, form.line),):
            file.seek(begin)
            left = stop - begin
            while left > 0:
                block = file.read(min(_BLOCK, left))
                if len(block) < left:
                    block += file.readline()  # to the end of its last line
                left -= len(block)
                if not block:
                    break
                if block.strip():
                    yield _parse(block, form, wanted, number), number
                number += block.count(b"\n")


def _parse(block: bytes, form: Layout, wanted: Sequence[int], number: int) -> "pd.DataFrame":
    import pandas as pd  # slow to import, and no other corpus needs it

    width = len(form.names) + form.spare
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if block.count(form.delimiter.encode()) != lines * (width - 1) and (fault := _fault(block, form, number)):
        raise fault  # pandas fills up short rows and cuts off long ones
    names = list(range(width))
    try:
        return pd.read_csv(
            io.BytesIO(block),
            header=None,
            names=names,
            usecols=sorted(set(wanted)),
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
        unknown = TableError(f"line {number} or one below it cannot be read: save the file as CSV again")
        raise _fault(block, form, number) or unknown from error


def _fault(block: bytes, form: Layout, number: int) -> TableError | None:
    """Finds the first line that cannot be read, or has more or fewer cells than there are columns."""
    for place, raw in enumerate(block.splitlines()):
        try:
            cells = cells_of(raw.decode(form.encoding), form.delimiter, form.quote)
        except UnicodeDecodeError as error:
            return TableError(f"line {number + place}: it is not {form.encoding} ({error}): save the file as UTF-8")
        columns = len(form.names)
        if any(cells[columns:]) or (any(cells) and len(cells) < columns):
            return TableError(f"line {number + place}: {len(cells)} cells for {columns} columns: mend the line")
    return None


def numbers(data: "pd.DataFrame", places: Sequence[int], form: Layout, number: int) -> np.ndarray:
    """The columns at some places as float32 `[N, D]`, NaN for empty cells.

    Raises:
      TableError: a column holds text.
    """
    if all(kind.kind in "fiub" for kind in data.dtypes):
        return data[list(places)].to_numpy(np.float32)
    out = np.empty((len(data), len(places)), np.float32)
    for to, place in enumerate(places):
        out[:, to] = column(data, place, form, number)
    return out


def column(data: "pd.DataFrame", place: int, form: Layout, number: int) -> np.ndarray:
    """One column as floats `[N]`, NaN for empty cells.

    Raises:
      TableError: it holds text; its first line is named.
    """
    import pandas as pd

    values = data[place]
    if values.dtype.kind in "fiub":
        return values.to_numpy(np.float64)
    converted = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero(converted.isna() & values.notna())
    if len(bad):
        name, text = form.names[place], str(values.iloc[bad[0]])
        raise TableError(
            f"line {number + bad[0]}: column {name!r} holds {text!r}, which is no number; leave it out by cols=!{name}"
        )
    return converted.to_numpy(np.float64)
