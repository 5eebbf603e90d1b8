"""Installs a release into the cache, from which commands take its runs by name (`avemo.runs.installed`)."""

import http.client
import pathlib
import urllib.parse
from typing import Any

from avemo.runs import archive, installed
from media import web
from media.errors import UserError
from media.files import own_folder, swap

TIMEOUT = 600.0  # s for the whole download


def install(source: str) -> dict[str, Any]:
    """Puts a release into the cache, whole and verified or not at all. A release of the same name is replaced.

    Args:
      source: an archive made by `release.pack`, or its http(s) address.

    Returns:
      `folder`, and `runs`: the names under which commands find them.

    Raises:
      UserError: the archive is missing, damaged or not a release, or the cache cannot be written.
    """
    remote = source.startswith(("http://", "https://"))
    path = urllib.parse.unquote(urllib.parse.urlsplit(source).path) if remote else source
    name = pathlib.PurePath(path).name.removesuffix(archive.SUFFIX)
    if not archive.NAME.fullmatch(name):
        raise UserError(f"{source} cannot be installed under the name {name!r}: rename it to letters, digits, - and _.")
    files = archive.read(_download(source) if remote else _open(source), source)
    target = installed.folder() / name
    try:
        _publish(files, target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror or error}): set AVEMO_CACHE to another folder."
        ) from error
    return {"folder": str(target), "runs": [r for r in installed.names() if r.startswith(f"{name}/")]}


def _publish(files: dict[str, bytes], target: pathlib.Path) -> None:
    """Writes the files beside `target`, then puts them in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(target.parent, ".install-") as staging:
        new = staging / "new"
        for name, data in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        swap(new, target)


def _open(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            return file.read(archive.LIMIT + 1)
    except OSError as error:
        raise UserError(f"--install={source} cannot be read: {error.strerror}.") from error


def _download(url: str) -> bytes:
    try:
        return web.fetch(url, limit=archive.LIMIT + 1, seconds=TIMEOUT)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be fetched ({error}): check the address, or download it yourself.") from error
