"""Digests of a data set's shards: written once by whoever writes the shards, checked by whoever relies on them."""

import concurrent.futures
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable

from etils import epath

from media.errors import UserError
from media.files import read_json, storage_errors

FILENAME = "digests.json"
_DIGEST = re.compile("[0-9a-f]{64}")


def write(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Writes the SHA-256 of these files of a folder beside them."""
    found = {name: of_file(epath.Path(folder) / name) for name in sorted(names)}
    (epath.Path(folder) / FILENAME).write_text(json.dumps({"sha256": found}, indent=1) + "\n")


def read(folder: str | os.PathLike) -> dict[str, str]:
    """Returns the recorded digests by file name; none for a data set that is older than they are.

    Raises:
      UserError: the file cannot be read.
    """
    path = epath.Path(folder) / FILENAME
    if not path.exists():
        return {}
    recorded = read_json(path, "prepare the data set again").get("sha256")
    if not isinstance(recorded, dict) or not all(_DIGEST.fullmatch(str(value)) for value in recorded.values()):
        raise UserError(f"{path} is damaged: prepare the data set again.")
    return recorded


def changed(folder: str | os.PathLike) -> list[epath.Path]:
    """Returns the files that are not as they were recorded; files in a bucket are only checked for being there.

    A file is read once per process, and again if its size or modification time changes.
    """
    recorded = read(folder)
    paths = [epath.Path(folder) / name for name in recorded]
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the GIL
        same = pool.map(_is, paths, recorded.values())
        return [path for path, unchanged in zip(paths, same, strict=True) if not unchanged]


def _is(path: epath.Path, digest: str) -> bool:
    if not path.exists():
        return False
    if "://" in str(path):
        return True
    with storage_errors(path):
        status = os.stat(path)
        return _once(str(path), status.st_size, status.st_mtime_ns) == digest


@functools.lru_cache(maxsize=4096)
def _once(path: str, size: int, modified: int) -> str:
    return of_file(epath.Path(path))


def of_file(path: epath.Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
