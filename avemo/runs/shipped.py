"""The release that the project carries: `emotions.zip` beside this file, also inside a wheel or a zipapp.

Its runs are `emotions/fusion`, `emotions/faces` and `emotions/speech`. It is verified and unpacked into a temporary
folder of the process, so that it needs neither a network nor a home that can be written.
"""

import atexit
import functools
import hashlib
import importlib.resources
import pathlib
import shutil
import tempfile

from avemo.runs import archive
from media.errors import UserError

RELEASE = "emotions"
RUN = f"{RELEASE}/fusion"
RUNS = (RUN, f"{RELEASE}/faces", f"{RELEASE}/speech")
LIMIT = 12_000_000  # bytes; every clone carries them
FILENAME, DIGEST = f"{RELEASE}.zip", f"{RELEASE}.sha256"
_REMEDY = "Install avemo again (in a clone: `git checkout avemo/runs`), or name a run of your own with --workdir."


def package() -> importlib.resources.abc.Traversable:
    """The folder of the archive."""
    return importlib.resources.files("avemo.runs")


def read() -> dict[str, bytes]:
    """The files of the release, each checked against its manifest, and the archive against its SHA-256.

    Raises:
      UserError: the archive is missing, cut, changed, or of another format.
    """
    source = package() / FILENAME
    try:
        data, expected = source.read_bytes(), (package() / DIGEST).read_text().split()[0]
    except (OSError, KeyError, IndexError) as error:  # KeyError: zipfile's, of a missing file
        raise UserError(f"the release that avemo carries, {source}, cannot be read ({error}). {_REMEDY}") from error
    try:
        files = archive.read(data, str(source))
    except UserError as error:
        raise UserError(f"{error} {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise UserError(f"{source} is not the release that this version of avemo carries (SHA-256). {_REMEDY}")
    return files


def remove() -> None:
    """Removes what was unpacked, for a process that ends without `atexit`; the next use unpacks it again."""
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)
        folder.cache_clear()


@functools.cache
def folder() -> pathlib.Path:
    """Unpacks the release for this process; returns the folder of its runs.

    Raises:
      UserError: as `read` does, or there is no room for it.
    """
    files = read()
    try:
        target = pathlib.Path(tempfile.mkdtemp(prefix="avemo-release-"))
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        for name, data in files.items():
            path = target / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"the release cannot be unpacked ({error.strerror or error}): set TMPDIR to a folder with 20 MB of room."
        ) from error
    return target
