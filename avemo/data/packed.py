"""A split decoded once into plain arrays on the disk, then memory-mapped: the form in which data stays on a device.

The cache lies beside the shards (`packed/` in the data set's folder), or in the user's cache folder if that cannot be
written. Its name is a digest of what it was made from, and it appears under that name only when it is complete, so a
cache of other shards or a half-written one is never read.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from media import caches
from media.errors import UserError

logger = logging.getLogger(__name__)
_VERSION = 1  # part of every digest: rises whenever the same recipe would give other arrays
_INDEX = "packed.json"

Chunk = Mapping[str, np.ndarray]


class CannotWrite(UserError):
    """No folder takes the packed form."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """Arrays whose leading axis is records, or parts of records (frames, rows of a spectrogram).

    Attributes:
      folder: where they lie.
      arrays: read-only memory maps by name.
    """

    folder: pathlib.Path
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Their size, bytes."""
        return sum(array.nbytes for array in self.arrays.values())


def find(dataset: epath.Path, recipe: Mapping[str, Any]) -> Packed | None:
    """The packed form of a split, if there is one; see `open_or_pack`."""
    for home in _homes(dataset):
        found = _open(home / _name(recipe))
        if found is not None:
            return found
    return None


def _name(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([_VERSION, recipe], sort_keys=True).encode()).hexdigest()[:16]


def open_or_pack(
    dataset: epath.Path, recipe: Mapping[str, Any], chunks: Callable[[], Iterable[Chunk]], nbytes: int = 0
) -> Packed:
    """Opens the packed form of a split, making it first if it is not there.

    Args:
      dataset: the data set's folder, local or gs://.
      recipe: everything that the arrays follow from, as JSON values: the data set's fingerprint, the split, sizes.
      chunks: gives the arrays a few records at a time, so that memory does not grow with the split. All chunks have the
        same names, dtypes and trailing shapes; they are joined along the leading axis.
      nbytes: about how many bytes that will be. A disk with less room is left alone.

    Raises:
      CannotWrite: no folder can be written, or the disk is full.
    """
    found = find(dataset, recipe)
    if found is not None:
        return found
    name, homes = _name(recipe), _homes(dataset)
    failure: OSError | None = None
    for home in homes:
        try:
            home.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(home).free < nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with _alone(home) as locked:
                if locked:
                    _remove_remains(home, recipe)
                return _open(home / name) or _pack(home / name, recipe, chunks)
        except OSError as error:
            failure = error
    reason = failure.strerror or failure if failure else "there is nowhere to write"
    raise CannotWrite(
        f"the packed form of {dataset} cannot be written to {' or '.join(map(str, homes))} ({reason}): free some "
        "space, set XDG_CACHE_HOME to a writable folder, or set --config.data.resident=off."
    ) from failure


@contextlib.contextmanager
def _alone(home: pathlib.Path) -> Iterator[bool]:
    """Lets one process at a time pack into a folder; gives False on a file system without locks."""
    descriptor, locked = os.open(home, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process packs into %s: waiting for it.", home)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _remove_remains(home: pathlib.Path, recipe: Mapping[str, Any]) -> None:
    """Removes what killed processes have left half written, and packed forms of shards that have changed since."""
    now = recipe.get("fingerprints", [None])[0]
    beside = home != _users_folder()  # where packed forms of other data sets lie
    for folder in home.iterdir():
        try:
            made_of = json.loads((folder / _INDEX).read_text())["recipe"].get("fingerprints", [None])[0]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            made_of = now
        if folder.name.startswith(".") or (beside and made_of != now):
            shutil.rmtree(folder, ignore_errors=True)


def _homes(dataset: epath.Path) -> list[pathlib.Path]:
    """Folders for the cache, in order of preference."""
    user = _users_folder()
    return [user] if "://" in str(dataset) else [pathlib.Path(dataset) / "packed", user]


def _users_folder() -> pathlib.Path:
    return caches.user_folder() / "packed"


def _open(folder: pathlib.Path) -> Packed | None:
    """The arrays in a folder, or None (said in one line) if they are not what its index says."""
    try:
        index = json.loads((folder / _INDEX).read_text())
        arrays = {}
        for name, entry in index["arrays"].items():
            dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
            path = folder / f"{name}.bin"
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if path.stat().st_size != size:
                raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
            arrays[name] = np.asarray(np.memmap(path, dtype, "r", shape=shape)) if size else np.zeros(shape, dtype)
        return Packed(folder, arrays)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is damaged (%s); it is made anew.", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _pack(folder: pathlib.Path, recipe: Mapping[str, Any], chunks: Callable[[], Iterable[Chunk]]) -> Packed:
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        index = _write(temporary, chunks())
        (temporary / _INDEX).write_text(json.dumps({"recipe": recipe, "arrays": index}, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one
        temporary.chmod(folder.parent.stat().st_mode & 0o777)  # for whoever shares the data set
        try:
            os.replace(temporary, folder)
        except OSError:
            if not (folder / _INDEX).exists():  # otherwise another process was faster: its arrays are the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _open(folder)
    if found is None:
        raise OSError(f"{folder} was changed while it was written")
    return found


def _write(folder: pathlib.Path, chunks: Iterable[Chunk]) -> dict[str, dict[str, Any]]:
    """Appends every chunk to one file per name; returns dtypes and shapes."""
    files: dict[str, BinaryIO] = {}
    shapes: dict[str, list[int]] = {}
    dtypes: dict[str, np.dtype] = {}
    try:
        for chunk in chunks:
            for name, array in chunk.items():
                if name not in files:
                    files[name] = open(folder / f"{name}.bin", "wb")  # noqa: SIM115 — many, closed below
                    shapes[name], dtypes[name] = [0, *array.shape[1:]], array.dtype
                if list(array.shape[1:]) != shapes[name][1:] or array.dtype != dtypes[name]:
                    raise ValueError(f"a chunk of {name!r} is {array.dtype}{array.shape}, unlike those before it")
                # Plain writes: pages of a writable map would count as this process's memory.
                files[name].write(np.ascontiguousarray(array).data)
                shapes[name][0] += len(array)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files.values():
            file.close()
    return {name: {"dtype": dtypes[name].str, "shape": shapes[name]} for name in files}
