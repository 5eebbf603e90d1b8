"""Opens a run folder that travels as one zip file, local or gs://: it is unpacked into the cache once.

The file may come from `launch.py pack`, or be any zip of a run folder, such as a download from a drive.
"""

import io
import pathlib
import stat
import zipfile
from collections.abc import Iterator

from etils import epath

from media import digests
from media.errors import UserError
from media.files import own_folder, swap
from media.zip_files import BROKEN, LARGEST, RATIO, open_zip

SUFFIX = ".zip"
_FOLDER = ".packed"  # hidden among the installed releases


def is_zip(path: str) -> bool:
    """Whether a path names a zip file and not a folder."""
    return path.endswith(SUFFIX) and not epath.Path(path).is_dir()


def unpack(source: str, cache: pathlib.Path) -> str:
    """Returns the run folder that a zip file holds.

    Args:
      source: the file, local or gs://.
      cache: the folder in which what was unpacked is kept, by the file's SHA-256.

    Raises:
      UserError: there is no such file, it is damaged or unsafe, it holds no run or several, or the cache cannot be
        written.
    """
    file = epath.Path(source)
    if not file.exists():
        raise UserError(f"{source} does not exist: name a run folder or a zip file of one.")
    try:
        digest = digests.of_file(file)[:16]
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error.strerror or error}): copy it again.") from error
    target = cache / _FOLDER / digest
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with own_folder(target.parent, ".unpack-") as staging:
                _extract(file, source, staging / "new" / file.stem)
                swap(staging / "new", target)
        except OSError as error:
            raise UserError(
                f"{target} cannot be written ({error.strerror or error}): set AVEMO_CACHE to another folder."
            ) from error
    return str(_run_in(target, source))


def _extract(file: epath.Path, source: str, target: pathlib.Path) -> None:
    target.mkdir(parents=True)
    for name, content in _contents(file.read_bytes(), source):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _contents(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    try:
        with open_zip(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > max(LARGEST, RATIO * len(data)):
                raise UserError(f"{source} unpacks to far more than it is: do not trust it.")
            for entry in entries:
                _check(entry, source)
                if not entry.is_dir():
                    yield entry.filename, archive.read(entry)
    except BROKEN as error:
        raise UserError(f"{source} is damaged or not a zip file ({error}): copy or download it again.") from error


def _check(entry: zipfile.ZipInfo, source: str) -> None:
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    outside = "\\" in name or ":" in name or not {"", ".", ".."}.isdisjoint(name.rstrip("/").split("/"))
    if outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(
            f"{source} holds {name!r}, which leads out of its folder or is not a plain file: do not trust it."
        )


def _run_in(folder: pathlib.Path, source: str) -> pathlib.Path:
    """The one run folder nearest to the top; a run that was zipped without its folder has the name of the file."""
    found = sorted({path.parent for path in folder.rglob("config.json")}, key=lambda path: (len(path.parts), path))
    nearest = [path for path in found if len(path.parts) == len(found[0].parts)]
    if len(nearest) == 1:
        return nearest[0]
    if not nearest:
        # A file that was cut short may end with the directory of an `.npz` inside it.
        raise UserError(
            f"{source} holds no run folder (no config.json), or was cut short: copy it again, or make it with "
            "`launch.py pack`."
        )
    names = ", ".join(path.name for path in nearest)
    raise UserError(f"{source} holds several runs ({names}): unpack it and name one, or pack each alone.")
