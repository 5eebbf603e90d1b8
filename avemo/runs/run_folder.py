"""A run's folder: its lock, its config and data, and whether it is finished."""

import contextlib
import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.data import feature_sets, mixture
from avemo.models import from_config
from avemo.runs import paths
from avemo.version import __version__
from media import small_jpeg
from media.errors import UserError
from media.files import read_json, write_atomically
from media.zip_files import BROKEN, read_npz


def require(path: str, role: str) -> str:
    """Returns `path` if it is a run folder.

    Args:
      path: what a config or command names.
      role: what the run is for ("teacher", "visual", "audio", …), for the error.

    Raises:
      UserError: `path` is empty, or not a run folder.
    """
    if not path:
        raise UserError(f"no {role} is named: pass its run folder as --config.{role}=DIR.")
    if not (epath.Path(path) / "config.json").exists():
        raise UserError(f"{role} {path} is not a run folder (no config.json): train it first with `launch.py train`.")
    return path


def config_of(workdir: str | epath.Path) -> ConfigDict:
    """Reads a run's config, in which every path is where the data or run is now (`avemo.runs.paths`).

    Raises:
      UserError: `workdir` has no `config.json`, or a damaged one.
    """
    return paths.located(configuration.from_json(epath.Path(workdir) / "config.json"), workdir)


_REMEDY = "remove it and run `launch.py train` again, which resumes at the last checkpoint"


class InUse(UserError):
    """Another process trains in the run folder."""


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Locks a run folder for this process; a second run on it is refused. Folders in the cloud are not locked."""
    if "://" in str(workdir) or jax.process_index() != 0:
        yield
        return
    import fcntl

    try:
        file = open(workdir / ".lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(f"another run is using {workdir}: wait for it, or choose another --workdir.") from error
        yield


def decide(config: ConfigDict, workdir: str | epath.Path) -> ConfigDict:
    """The config with what is "auto" decided.

    `model.dtype` is as the run in `workdir` began, or by the platform. `model.streams` are those of the data, if they
    are not the default two.
    """
    config = feature_sets.with_streams(config)
    if config.model.get("dtype") != from_config.AUTO:
        return config
    path = epath.Path(workdir) / "config.json"
    begun = configuration.from_json(path).get("model", {}).get("dtype") if path.exists() else None
    dtype = begun or from_config.decided(from_config.AUTO, jax.default_backend() != "cpu")
    return configuration.in_dtype(config, dtype)


def prepare_workdir(config: ConfigDict, workdir: str | epath.Path) -> epath.Path:
    """Creates the run folder and writes `config.json`, or checks that an existing folder belongs to this config.

    Raises:
      UserError: the folder cannot be written, or holds a run of another config (the differing fields are named).
    """
    workdir = epath.Path(workdir)
    path = workdir / "config.json"
    if path.exists():
        changed = configuration.difference(configuration.from_json(path), config)
        if changed:
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(changed[:5])}"
                f"{'; …' if len(changed) > 5 else ''}): choose another --workdir or undo the change."
            )
        return workdir
    named = paths.recorded_in(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            write_atomically(path, json.dumps(configuration.to_dict(config), indent=2, sort_keys=True) + "\n")
            paths.record(workdir, dict(zip(named, named, strict=True)))
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror or error}") from error
    return workdir


def environment() -> dict[str, Any]:
    """Returns the versions and the hardware that produce a result."""
    import flax

    return {
        "avemo": __version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "jpeg_decoder": small_jpeg.DECODER,  # pictures, and so scores, depend on it
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
    }


def finished(workdir: str | epath.Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns the result of the run in `workdir` if it is complete under this config, otherwise None.

    Raises:
      UserError: `result.json` is damaged.
    """
    result = _result(workdir)
    return result if result and result.get("step") == config.steps else None


def class_names(workdir: str | epath.Path) -> tuple[str, ...]:
    """Returns the classes that a run was trained on; empty if it is not complete or has no classes.

    Raises:
      UserError: `result.json` is damaged.
    """
    names = _result(workdir).get("class_names") or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{epath.Path(workdir) / 'result.json'} cannot be read (its class_names): {_REMEDY}.")
    return tuple(names)


def _result(workdir: str | epath.Path) -> dict[str, Any]:
    path = epath.Path(workdir) / "result.json"
    return read_json(path, _REMEDY) if path.exists() else {}


def save_predictions(folder: epath.Path, split: str, predictions: Mapping[str, Any]) -> None:
    """Writes `<split>.npz` into a folder (`predictions/` of the run, for the run's own data)."""
    if jax.process_index() != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.npz").open("wb") as file:
        np.savez_compressed(file, **predictions)


def read_predictions(path: epath.Path) -> dict[str, np.ndarray]:
    """Reads what `save_predictions` wrote.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return read_npz(file)
    except BROKEN as error:
        raise UserError(f"{path} cannot be read ({error}): run `launch.py evaluate` again.") from error


def check_fingerprints(data: Mapping[str, str], workdir: epath.Path) -> dict[str, str]:
    """Returns the fingerprints of the data folders by role, and records them in the run folder's `data.json`.

    Raises:
      UserError: the run folder has recorded a different fingerprint.
    """
    prints = {role: mixture.fingerprint(path) for role, path in data.items()}
    path = workdir / "data.json"
    if path.exists():
        before = read_json(path, "restore it, or choose another --workdir")
        for role, value in prints.items():
            if before.get(role, value) != value:
                raise UserError(
                    f"the data {role!r} ({data[role]}) changed since {workdir} was started: "
                    "put the old shards back or choose another --workdir."
                )
    elif jax.process_index() == 0:
        write_atomically(path, json.dumps(prints, indent=2) + "\n")
    return prints
