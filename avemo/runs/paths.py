"""Finds the folders and files that a run names by path, from any current folder and after they have moved together.

A run records paths as they were given, often relative to the folder in which the command ran. `record` keeps beside
them, in `paths.json`, the same paths relative to the run folder; `find` looks there too.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from etils import epath
from ml_collections import ConfigDict

from avemo.data import mixture
from media import files

FILENAME = "paths.json"
DATA_FIELDS = ("faces", "triplets", "unlabelled", "clips", "features")  # fields of `config.data` that name data sets
RUN_FIELDS = ("teacher", "fusion", "visual", "audio")  # config fields that name run folders


def find(recorded: str, folder: str | os.PathLike) -> str:
    """Returns where a path that a run recorded is now.

    A path that exists as it stands is returned unchanged. Otherwise it is looked up in `paths.json`, and then, if it is
    relative, from the folder and each of its parents. For a relative path, `paths.json` comes before the current
    folder, where another project may have a folder of the same name.

    Args:
      recorded: the path.
      folder: the run folder (or features folder) whose files name the path.

    Returns:
      The path found, or `recorded` itself if there is none.
    """
    folder = os.fspath(folder)
    if not recorded or "://" in recorded or "://" in folder:
        return recorded
    folder = os.path.abspath(folder)
    kept = _kept(folder).get(recorded)
    beside = [os.path.normpath(os.path.join(folder, kept))] if kept else []
    if os.path.isabs(recorded):
        candidates = [recorded, *beside]
    else:
        upwards = (folder, *map(str, pathlib.Path(folder).parents))
        candidates = [*beside, recorded, *(os.path.join(parent, recorded) for parent in upwards)]
    found = next((path for path in candidates if os.path.exists(path)), recorded)
    return recorded if os.path.abspath(recorded) == found else found


def find_data(recorded: str, folder: str | os.PathLike) -> str:
    """As `find`, for a data set or a mixture of several, `DIR:WEIGHT,DIR:WEIGHT`."""
    found = find(recorded, folder)
    if found != recorded or not any(mark in recorded for mark in ",:"):
        return found
    data_sets = [(one, find(one.folder, folder)) for one in mixture.parse(recorded)]
    if all(one.folder == path for one, path in data_sets):
        return recorded
    return ",".join(f"{path}:{one.weight!r}" for one, path in data_sets)


def located(config: ConfigDict, folder: str | os.PathLike) -> ConfigDict:
    """Returns the config of a run with every path in it as it is now."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for section, name in _fields(config):
            finder = find_data if name in DATA_FIELDS else find
            section[name] = finder(section[name], folder)
    return config


def recorded_in(config: ConfigDict) -> list[str]:
    """Lists the paths in a config; a mixture gives each of its folders."""
    out: list[str] = []
    for section, name in _fields(config):
        value = section[name]
        out += [one.folder for one in mixture.parse(value)] if name in DATA_FIELDS else [value]
    return out


def record(folder: str | os.PathLike, places: Mapping[str, str]) -> None:
    """Adds paths to a folder's `paths.json`.

    Args:
      folder: the folder whose files name the paths.
      places: where each path is now, by the path as the files have it. Addresses and missing paths are left out.
    """
    folder = os.fspath(folder)
    if "://" in folder:
        return
    relative = {
        name: os.path.relpath(os.path.abspath(place), os.path.abspath(folder))
        for name, place in places.items()
        if name and "://" not in place and os.path.exists(place)
    }
    kept = _kept(folder)
    if {**kept, **relative} != kept:
        text = json.dumps({**kept, **relative}, indent=2, sort_keys=True) + "\n"
        files.write_atomically(os.path.join(folder, FILENAME), text)


def _fields(config: ConfigDict) -> Iterator[tuple[ConfigDict, str]]:
    """Yields the section and the name of every config field that holds a path."""
    data, model = config.get("data") or {}, config.get("model") or {}
    named = [(data, name) for name in DATA_FIELDS] + [(config, name) for name in RUN_FIELDS] + [(model, "init_from")]
    yield from ((section, name) for section, name in named if section.get(name) and isinstance(section[name], str))


def _kept(folder: str) -> dict[str, str]:
    path = epath.Path(folder) / FILENAME
    return files.read_json(path) if path.exists() else {}
