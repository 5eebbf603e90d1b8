"""Files that appear whole or not at all."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from media.errors import UserError

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file; a reader sees the old content or the new, never half of it."""
    target = epath.Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}"
    try:
        if isinstance(content, str):
            temporary.write_text(content)
        else:
            temporary.write_bytes(content)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def media_address(path: str | os.PathLike) -> str:
    """Returns a local file's name as FFmpeg needs it if it has a colon, which would name a protocol."""
    return f"file:{os.fspath(path)}"


def shown(name: str | os.PathLike) -> str:
    """Returns a file's name as text that can be printed and stored: bytes that are not UTF-8 are read as Latin-1."""
    data = os.fsencode(name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


LFS_REMEDY = "it is a pointer of Git LFS and not the file: run `git lfs pull` in the clone"
_LFS = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a file begins as the pointer that a clone without Git LFS leaves in its place."""
    return data.startswith(_LFS)


def points_to_lfs(path: str | os.PathLike) -> bool:
    """Whether the file is a pointer of Git LFS; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return is_lfs_pointer(file.read(len(_LFS)))
    except OSError:
        return False


def read_json(
    path: str | os.PathLike, remedy: str = "remove it and run the stage that wrote it again"
) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
      UserError: the file cannot be read or holds something else; `remedy` says what to do.
    """
    try:
        value = json.loads(epath.Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} cannot be read (it is not a JSON object): {remedy}.")
    return value


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike) -> Iterator[None]:
    """Reports in one line that the disk or bucket does not give a file. The file need not be damaged.

    Raises:
      UserError: an OSError was raised in the block.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check its permissions and the disk."
        ) from error


@contextlib.contextmanager
def write_errors(
    folder: str | os.PathLike, remedy: str = "run the same command again", needed: int = 1 << 16
) -> Iterator[None]:
    """Says in one line that a folder cannot be written or its disk is full.

    Libraries report a full disk as errors of many kinds. Any error is taken for one if the disk has no room.

    Args:
      folder: what is written.
      remedy: what to do, besides freeing space.
      needed: bytes that there must be room for.

    Raises:
      UserError: so it is. Other errors pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = getattr(error, "filename", None) or folder
            raise UserError(f"{where} cannot be opened ({os.strerror(code)}): choose another folder.") from error
        if code not in STORAGE_ERRORS and not is_full(folder, needed):
            raise
        reason = os.strerror(code if code in STORAGE_ERRORS else errno.ENOSPC)
        raise UserError(f"writing to {folder} failed ({reason}): free some space and {remedy}.") from error


def is_full(folder: str | os.PathLike, needed: int) -> bool:
    """Whether the disk of a local folder has no room for `needed` bytes."""
    place = pathlib.Path(folder)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return "://" not in str(folder) and shutil.disk_usage(place).free < needed
    except OSError:
        return False


@contextlib.contextmanager
def own_folder(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """Yields a new folder in `parent`, named `prefix` and some letters, which is removed at the end.

    What killed processes left under this prefix is removed first. A folder in use is recognised by its lock.
    """
    for path in parent.iterdir():
        if path.name.startswith(prefix) and (lock := _lock(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock(folder)
        if folder.exists():  # nobody took it for an abandoned one before it was locked
            break
        if lock is not None:
            os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(folder: pathlib.Path) -> int | None:
    """Locks a folder for this process; None if another has it, or its file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


_EXCHANGE, _HERE = 2, -100  # renameat2's flag RENAME_EXCHANGE, and its "paths are as they are"


def swap(new: pathlib.Path, target: pathlib.Path) -> None:
    """Puts a folder in the place of another, which lies at `new` afterwards; `target` exists at every moment."""
    if not target.exists():
        os.rename(new, target)
        return
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is not None and exchange(_HERE, os.fsencode(new), _HERE, os.fsencode(target), _EXCHANGE) == 0:
        return
    # Not on this file system: for a moment there is none.
    old = new.with_name("old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise


@contextlib.contextmanager
def publish(output: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder to write into; its files move to `output` on success and are removed on failure.

    Raises:
      UserError: `output` cannot be written, or the disk is full. Other errors inside the block pass unchanged.
    """
    output = pathlib.Path(output)
    new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        staging = contextlib.ExitStack()
        temporary = staging.enter_context(own_folder(output, ".partial-"))
    except OSError as error:
        raise UserError(f"--output={output} cannot be written: {error.strerror}.") from error
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            os.replace(path, output / path.name)
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise UserError(f"writing to {output} failed ({error.strerror}): free some space and run again.") from error
    finally:
        staging.close()
        if new:
            with contextlib.suppress(OSError):  # a folder with files in it stays
                output.rmdir()
