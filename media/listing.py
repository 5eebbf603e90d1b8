"""Finding a user's files below a folder: everything except hidden files and what programs leave there."""

import os
import pathlib
from collections.abc import Callable, Collection, Iterator

# Folders that NAS systems, archivers and desktops make beside the user's files. Names that begin with a dot
# (`._talk.mp4`, `.Trash-1000`) are never input either.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information", "lost+found")
)
# A folder with one of these sets of files was written by this project.
_DATA_SET = frozenset(("features.json", "dataset_info.json"))
_TRACES = frozenset(("trace.csv", "trace.json", "trace.png", "viewer.html"))
_RENDERED = frozenset(("overlay.mp4", "sound.m4a"))


def fail(error: OSError) -> None:
    """Raises the error of a folder that cannot be read."""
    raise error


def files(
    folder: str | os.PathLike,
    *,
    recursive: bool = True,
    skip: Collection[pathlib.Path] = (),
    unreadable: Callable[[OSError], None] = fail,
) -> Iterator[pathlib.Path]:
    """Yields the files below a folder in the order of their names, each once even if links form a loop.

    Hidden names, system folders, data sets and what `predict` drew are left out. The time is linear in the number of
    files.

    Args:
      folder: where to look.
      recursive: whether to look into subfolders.
      skip: folders that are left out, such as the output.
      unreadable: called with the error of a folder that cannot be read.
    """
    left_out = {identity for path in skip if (identity := _identity(path)) is not None}
    yield from _walk(pathlib.Path(folder), recursive, left_out, unreadable)


def _walk(
    folder: pathlib.Path, recursive: bool, seen: set[tuple[int, int]], unreadable: Callable[[OSError], None]
) -> Iterator[pathlib.Path]:
    identity = _identity(folder)
    if identity in seen:
        return
    if identity is not None:
        seen.add(identity)
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        unreadable(error)
        return
    names = {entry.name for entry in found}
    if names >= _DATA_SET:
        return
    own = _RENDERED if names & _TRACES else frozenset()
    for entry in found:
        if entry.is_dir():
            if recursive:
                yield from _walk(folder / entry.name, recursive, seen, unreadable)
        elif entry.name not in own:
            yield folder / entry.name


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
