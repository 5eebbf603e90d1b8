"""Which file, or part of a file, holds each recording's rows."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from data_prep.features import delimited, reading
from data_prep.features.rows import Part, at
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media import listing
from media.errors import UserError
from media.files import shown


@dataclasses.dataclass(frozen=True)
class Found:
    """The parts of one kind of table by the recordings' names, and how they were understood."""

    parts: dict[str, Part]
    notes: list[str]


def find(root: pathlib.Path, spec: TableSpec, flag: str) -> Found:
    """Finds the rows of every recording.

    Args:
      root: the folder that relative paths start from.
      spec: the table.
      flag: where it was named, for messages.

    Raises:
      UserError: the path does not exist, holds no table, or a recording has two of them.
    """
    parts: dict[str, Part] = {}
    notes: list[str] = []
    for name, path in _files(root, spec, flag):
        for recording, part in _parts(name, path, spec, notes).items():
            if recording in parts:
                other = parts[recording].path
                raise UserError(
                    f"--{flag}: {other} and {path} both hold recording {recording!r}: remove one, or name its folder."
                )
            parts[recording] = part
    if not parts:
        raise UserError(f"--{flag}={spec.path}: no table in {root / spec.path} (known: {', '.join(reading.SUFFIXES)}).")
    return Found(parts, notes)


def _files(root: pathlib.Path, spec: TableSpec, flag: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (name of the recording, file), the name without suffix."""
    if "{name}" in spec.path:
        head, tail = spec.path.split("{name}")
        folder = root / head if head.endswith("/") or not head else (root / head).parent
        pattern = re.compile(
            re.escape(str(root / head).rstrip("/") + ("/" if head.endswith("/") or not head else ""))
            + "(?P<name>[^/]+)"
            + re.escape(tail)
        )
        for path in _below(folder, flag):
            if found := pattern.fullmatch(str(path)):
                yield found["name"], path
        return
    path = root / spec.path
    if path.is_file():
        yield path.stem, path
        return
    if not path.is_dir():
        raise UserError(f"--{flag}={spec.path}: {path} does not exist: name a file or folder below --source.")
    for file in _below(path, flag):
        if file.suffix.lower() in reading.SUFFIXES:
            yield shown(file.relative_to(path).with_suffix("")), file


def _below(folder: pathlib.Path, flag: str) -> Iterator[pathlib.Path]:
    def unreadable(error: OSError) -> None:
        raise UserError(f"--{flag}: {error.filename} cannot be read: {error.strerror}.") from error

    yield from listing.files(folder, unreadable=unreadable)


def _parts(name: str, path: pathlib.Path, spec: TableSpec, notes: list[str]) -> dict[str, Part]:
    """The recordings in one file: itself, or those that its column of names tells apart."""
    try:
        form = reading.layout(str(path), spec)
        columns, understood = delimited.select(form, spec)
        notes += [note for note in (*form.notes, *understood) if note not in notes]
        if columns.key is None or not delimited.holds_several(path, form, columns.key):
            return {name: Part(str(path))}
        runs = delimited.recordings(path, form, columns.key)
        return {recording: Part(str(path), tuple(ranges)) for recording, ranges in runs.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except TableError as error:
        raise at(path, error) from error
