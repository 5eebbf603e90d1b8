"""Checkpoints that cannot be read: how damage is found, and where what is damaged is kept."""

import itertools
import json
import logging

from etils import epath

from avemo.runs import digests

logger = logging.getLogger(__name__)
FOLDER = "damaged_checkpoints"  # in the run folder
ITEMS = ("state", "data", "config")


def set_aside_metrics(folder: epath.Path) -> None:
    """Moves damaged metrics to `damaged_checkpoints/`: the manager reads those of every checkpoint."""
    for path in folder.glob("*/metrics/metrics") if folder.exists() else ():
        step = path.parent.parent
        try:
            json.loads(path.read_text())
            good = digests.damaged(step, ("metrics",)) is None
        except ValueError:
            good = False
        if not good:
            if digests.damaged(step, ITEMS) is None:  # else the checkpoint itself is reported
                logger.warning("%s cannot be read; its checkpoint is kept without metrics.", path)
            move_aside(path.parent, f"{step.name}.metrics")


class Damaged(Exception):
    """A file of a checkpoint is not as it was written."""


def check(folder: epath.Path) -> None:
    """Compares a checkpoint's files with their digests.

    Raises:
      Damaged: one is not as it was written.
      OSError: the storage does not give a file.
    """
    name = digests.damaged(folder, ITEMS)
    if name is not None:
        raise Damaged(f"{name} is not as it was written")


def unreadable(folder: epath.Path) -> OSError | None:
    """Reads every file of a folder; returns the first error of the storage."""
    try:
        for path in digests.files(folder):
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass
    except OSError as error:
        return error
    return None


def move_aside(path: epath.Path, name: str) -> epath.Path:
    """Moves a checkpoint, or its metrics, to `damaged_checkpoints/NAME`, with a number if that is taken."""
    checkpoints = path.parent if path.parent.name == "checkpoints" else path.parent.parent
    aside = checkpoints.parent / FOLDER
    aside.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
    target = next(aside / one for one in names if not (aside / one).exists())
    path.rename(target)
    return target
