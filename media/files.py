"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from media.errors import UserError

_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
    except (OSError, ValueError) as error:
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
def publish(output: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder to write into; its files move to `output` on success and are removed on failure.

    Raises:
      UserError: `output` cannot be written, or the disk is full. Other errors inside the block pass unchanged.
    """
    output = pathlib.Path(output)
    new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=output))
    except OSError as error:
        raise UserError(f"--output={output} cannot be written: {error.strerror}.") from error
    try:
        yield temporary
        for path in sorted(temporary.iterdir()):
            os.replace(path, output / path.name)
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        raise UserError(f"writing to {output} failed ({error.strerror}): free some space and run again.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # a folder with files in it stays
                output.rmdir()
