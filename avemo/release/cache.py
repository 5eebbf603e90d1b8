"""Installed releases, and where a command's run is: in a folder, or in the cache under its name.

The cache is `$AVEMO_CACHE`, else `$XDG_CACHE_HOME/avemo`, else `~/.cache/avemo`. An archive NAME.zip is installed as
the folder NAME, whose folders are runs: `fusion`, or `NAME/fusion` where several releases have one of this name.
"""

import http.client
import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from typing import Any

from avemo.release import archive
from media.errors import UserError

NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
TIMEOUT = 60.0  # s without a byte from the server


def folder() -> pathlib.Path:
    """The cache's folder, which need not exist."""
    named = os.environ.get("AVEMO_CACHE")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "avemo"


def installed() -> list[str]:
    """The runs in the cache, as `RELEASE/RUN`."""
    return sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in folder().glob("[!.]*/*/config.json"))


def find(workdir: str) -> str:
    """The run folder that `workdir` means: itself if it is there, else the installed run of that name.

    Args:
      workdir: a folder, or the name of a released run (`RUN` or `RELEASE/RUN`); or several separated by commas.

    Returns:
      The folder, or folders separated by commas. What exists, is at gs:// or cannot be a name is returned as it is.

    Raises:
      UserError: there is neither such a folder nor one such run.
    """
    workdir = os.fspath(workdir)
    if "," in workdir and not os.path.exists(workdir):
        return ",".join(find(part) for part in workdir.split(",") if part)
    could_be_name = all(NAME.fullmatch(part) for part in workdir.split("/")) and workdir.count("/") < 2
    if not could_be_name or os.path.exists(os.path.join(workdir, "config.json")):
        return workdir
    runs = installed()
    found = [run for run in runs if workdir in (run, run.partition("/")[2])]
    if len(found) == 1:
        return str(folder() / found[0])
    if found:
        raise UserError(f"{workdir} is in several installed releases: name one of {', '.join(found)}.")
    if os.path.exists(workdir):
        return workdir
    raise UserError(
        f"{workdir} is not a run folder, and no release with a run of this name is installed in {folder()} "
        f"({'there are: ' + ', '.join(runs) if runs else 'nothing is'}). Make one by `make results` and `make "
        "release`, or get the archive from someone who has it; then `python launch.py release --install=FILE.zip` (or "
        "its http(s) address)."
    )


def install(source: str) -> dict[str, Any]:
    """Puts a release into the cache: whole and verified, or not at all. One of the same name is replaced.

    Args:
      source: an archive made by `release.pack`, or its http(s) address.

    Returns:
      `folder` and `runs`, the names under which commands find them.

    Raises:
      UserError: there is no such archive, it is damaged or not a release, or the cache cannot be written.
    """
    remote = source.startswith(("http://", "https://"))
    path = urllib.parse.unquote(urllib.parse.urlsplit(source).path) if remote else source
    name = pathlib.PurePath(path).name.removesuffix(archive.SUFFIX)
    if not NAME.fullmatch(name):
        raise UserError(f"{source} cannot be installed under the name {name!r}: rename it to letters, digits, - and _.")
    files = archive.read(_download(source) if remote else _open(source), source)
    target = folder() / name
    try:
        _publish(files, target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror or error}): set AVEMO_CACHE to another folder."
        ) from error
    return {"folder": str(target), "runs": [r for r in installed() if r.startswith(f"{name}/")]}


def _publish(files: dict[str, bytes], target: pathlib.Path) -> None:
    """Writes the files beside `target` and puts them in its place by renaming."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".install-", dir=target.parent))
    try:
        new, old = staging / "new", staging / "old"
        for name, data in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            return file.read(archive.LIMIT + 1)
    except OSError as error:
        raise UserError(f"--install={source} cannot be read: {error.strerror}.") from error


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            data = answer.read(archive.LIMIT + 1)
            expected = answer.headers.get("Content-Length", "")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url} cannot be fetched ({error}): check the address, or download it by hand.") from error
    if expected.isdigit() and len(data) < min(int(expected), archive.LIMIT):
        raise UserError(f"{url} broke off after {len(data)} of {expected} bytes: try again.")
    return data
