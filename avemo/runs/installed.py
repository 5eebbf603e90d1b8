"""Finds installed releases and zipped runs: the folder that a command's `--workdir` names.

The cache is `$AVEMO_CACHE`, else `$XDG_CACHE_HOME/avemo`, else `~/.cache/avemo`. An archive NAME.zip is installed as
the folder NAME, and each folder inside it is a run. A run is addressed as `fusion`, or as `NAME/fusion` if several
releases contain a run of that name. The release that the project carries is found last (`avemo.runs.shipped`).
"""

import os
import pathlib

from avemo.runs import archive, shipped, zipped
from media import caches
from media.errors import UserError


def folder() -> pathlib.Path:
    """Returns the cache folder, which need not exist."""
    named = os.environ.get("AVEMO_CACHE")
    try:
        return pathlib.Path(named) if named else caches.user_folder()
    except RuntimeError:  # a user without a home: nothing is installed, and nothing can be
        return pathlib.Path(os.devnull, "avemo")


def names() -> list[str]:
    """Lists the runs in the cache as `RELEASE/RUN`."""
    return sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in folder().glob("[!.]*/*/config.json"))


def separate(workdir: str) -> list[str]:
    """Returns the run folders or names in `DIR[,DIR…]`. A comma that belongs to a folder's name does not separate."""
    pieces = workdir.split(",")
    out = []
    while pieces:
        ends = (end for end in range(len(pieces), 1, -1) if os.path.exists(",".join(pieces[:end])))
        end = next(ends, 1)
        out.append(",".join(pieces[:end]))
        pieces = pieces[end:]
    return [part for part in out if part]


def shown(workdir: str) -> str:
    """Returns what may be said of run folders to others: relative paths, names of releases, else the folders' names."""
    return ",".join(_shown(pathlib.PurePath(part)) for part in separate(os.fspath(workdir)))


def _shown(path: pathlib.PurePath) -> str:
    if path.is_relative_to(folder()):
        return str(path.relative_to(folder()))
    return path.name if path.is_absolute() or ".." in path.parts else str(path)


def find(workdir: str) -> str:
    """Returns the run folder that `workdir` names: an existing folder, a zip file of one, or else an installed run.

    Args:
      workdir: a folder, a zip file of a run folder, or the name of a released run (`RUN` or `RELEASE/RUN`), or several
        separated by commas.

    Returns:
      The folder, or the folders separated by commas. A path that exists, a gs:// address and a string that cannot be
      a name are returned unchanged.

    Raises:
      UserError: no such folder exists, and no installed run, or more than one, has this name; or the zip file cannot be
        opened.
    """
    workdir = os.fspath(workdir)
    if len(several := separate(workdir)) > 1:
        return ",".join(find(part) for part in several)
    if zipped.is_zip(workdir):
        return zipped.unpack(workdir, folder())
    could_be_name = all(archive.NAME.fullmatch(part) for part in workdir.split("/")) and workdir.count("/") < 2
    if not could_be_name or os.path.exists(os.path.join(workdir, "config.json")):
        return workdir
    runs = names()
    found = [run for run in runs if workdir in (run, run.partition("/")[2])]
    if len(found) == 1:
        return str(folder() / found[0])
    if found:
        raise UserError(f"{workdir} is in several installed releases: name one of {', '.join(found)}.")
    if workdir in shipped.RUNS:
        return str(shipped.folder() / workdir.partition("/")[2])
    if os.path.exists(workdir):
        return workdir
    raise UserError(
        f"{workdir} is not a run folder, and no release with a run of this name is installed in {folder()} "
        f"({'installed: ' + ', '.join(runs) if runs else 'nothing is installed'}). Make one with "
        "`make results TRAIN=1` and `make release`, or get an archive from someone who has it; then run "
        "`python launch.py release --install=FILE.zip` (or its http(s) address)."
    )
