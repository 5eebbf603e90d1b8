"""What an experiment reports: scores with intervals, paired differences, checks; and reading what its steps left."""

import pathlib
from typing import Any

import numpy as np

from avemo.metrics import significance
from media.errors import UserError

RESAMPLES = 9999


def score(system: str, found: significance.Score, *, ours: bool = False, **more: Any) -> dict[str, Any]:
    """A system's score (mean over its seeds) with a 95 % interval over the units of `found`."""
    low, high = significance.bootstrap(found, resamples=RESAMPLES)
    return {"system": system, "value": found.mean(), "low": low, "high": high, "ours": ours, **more}


def difference(first: str, second: str, a: significance.Score, b: significance.Score) -> dict[str, Any]:
    """`first − second` on the same units, with paired interval and p-value."""
    found = significance.compare(a, b, resamples=RESAMPLES)
    return {
        "first": first,
        "second": second,
        "value": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Raises:
      UserError: the file does not exist although its step succeeded: a sweep continues after a failed cell.
    """
    if not path.exists():
        raise UserError(f"{path} was not written: see its step's log in logs/ for the reason, then run the row again.")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def peer(path: pathlib.Path, names: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A peer's predictions, reordered to match our files.

    Args:
      path: an `.npz` in which `name`, `label` and `probability_*` have one entry per file.
      names, labels: ours, `[N]`.

    Raises:
      UserError: the peer ran on other files, or with other labels.
    """
    theirs = load(path)
    places = {str(name): place for place, name in enumerate(theirs["name"])}
    if sorted(places) != sorted(map(str, names)):
        raise UserError(f"{path} does not cover the same files as ours: delete it and run the row again.")
    order = [places[str(name)] for name in names]
    if (theirs["label"][order] != labels).any():
        raise UserError(f"{path} has different labels from ours: delete it and run the row again.")
    said = {key: value[order] for key, value in theirs.items() if key.startswith("probability_")}
    return {**theirs, **said, "name": theirs["name"][order], "label": theirs["label"][order]}


def check(what: str, met: bool) -> dict[str, Any]:
    """Whether a target was reached."""
    return {"what": what, "met": bool(met)}
