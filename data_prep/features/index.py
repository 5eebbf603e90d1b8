"""Which file, or part of a file, holds each recording's rows."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from data_prep.features import reading
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
        for recording, part in _recordings(name, path, spec, notes).items():
            if recording in parts:
                other = parts[recording].path
                raise UserError(
                    f"--{flag}: {other} and {path} both contain recording {recording!r}: remove one, or name its "
                    "folder."
                )
            parts[recording] = part
    if not parts:
        raise UserError(f"--{flag}={spec.path}: no table in {root / spec.path} (known: {', '.join(reading.SUFFIXES)}).")
    return Found(parts, notes)


def _recordings(name: str, path: pathlib.Path, spec: TableSpec, notes: list[str]) -> dict[str, Part]:
    try:
        found = reading.recordings(path, spec, notes)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except TableError as error:
        raise at(path, error) from error
    if "" in found:
        return {name: found[""]}
    # A column of names may hold paths; their last parts do if they tell the recordings apart.
    short = {recording: pathlib.PurePosixPath(recording.replace("\\", "/")).name for recording in found}
    apart = len(set(short.values())) == len(short) and all(short.values())
    return {short[recording] if apart else recording: part for recording, part in found.items()}


def _files(root: pathlib.Path, spec: TableSpec, flag: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (name of the recording, file), the name without suffix."""
    if "{name}" in spec.path or "*" in spec.path:
        yield from _matching(root, spec.path, flag)
        return
    path = root / spec.path
    if path.is_file():
        yield path.stem, path
        return
    if not path.is_dir():
        raise UserError(f"--{flag}={spec.path}: {path} does not exist: name a file or folder below --source.")
    found = [file for file in _below(path, flag) if file.suffix.lower() in reading.SUFFIXES]
    tables = [file for file in found if file.suffix.lower() != ".txt"]
    for file in tables or found:  # beside tables, .txt files are for people
        yield shown(file.relative_to(path).with_suffix("")), file


def _matching(root: pathlib.Path, template: str, flag: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields the files whose paths fit a template; `{name}` and `*` stand for a part of one name."""
    fixed = []
    for part in pathlib.PurePath(template).parts[:-1]:
        if "{name}" in part or "*" in part:
            break
        fixed.append(part)
    folder = root.joinpath(*fixed)
    if not folder.is_dir():
        raise UserError(f"--{flag}={template}: {folder} does not exist: name a folder below --source.")
    words = re.split(r"(\{name\}|\*)", str(root / template))
    group = iter(("(?P<name>[^/]+)",))
    pattern = "".join(
        next(group, "(?P=name)") if word == "{name}" else "[^/]*?" if word == "*" else re.escape(word) for word in words
    )
    for file in _below(folder, flag):
        if found := re.fullmatch(pattern, str(file)):
            yield found.groupdict().get("name") or file.stem, file


def _below(folder: pathlib.Path, flag: str) -> Iterator[pathlib.Path]:
    def unreadable(error: OSError) -> None:
        raise UserError(f"--{flag}: {error.filename} cannot be read: {error.strerror}.") from error

    yield from listing.files(folder, unreadable=unreadable)
