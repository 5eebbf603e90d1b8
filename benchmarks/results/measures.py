"""What an experiment reports: scores with intervals, paired differences, checks; and reading what its steps left."""

import pathlib
from typing import Any

import numpy as np

from avemo.metrics import significance
from media.errors import UserError

RESAMPLES = 9999


def score(system: str, found: significance.Score, *, ours: bool = False, **more: Any) -> dict[str, Any]:
    """A system's score with its 95 % interval over the units of `found` (mean over its seeds)."""
    low, high = significance.bootstrap(found, resamples=RESAMPLES)
    return {"system": system, "value": found.mean(), "low": low, "high": high, "ours": ours, **more}


def difference(first: str, second: str, a: significance.Score, b: significance.Score) -> dict[str, Any]:
    """`first − second` on the same units, with interval and p-value (paired)."""
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
      UserError: it is not there, though the steps before have ended well: a sweep goes on after a cell that failed.
    """
    if not path.exists():
        raise UserError(f"{path} was not written: its step's log in logs/ says why; run the row again.")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def peer(path: pathlib.Path, names: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a peer said, in our order of the same files.

    Args:
      path: an `.npz` whose `name`, `label` and `probability_*` have one entry a file.
      names, labels: ours, `[N]`.

    Raises:
      UserError: it was run on other files, or by other labels.
    """
    theirs = load(path)
    places = {str(name): place for place, name in enumerate(theirs["name"])}
    if sorted(places) != sorted(map(str, names)):
        raise UserError(f"{path} is not of the same files as ours: delete it and run the row again.")
    order = [places[str(name)] for name in names]
    if (theirs["label"][order] != labels).any():
        raise UserError(f"{path} has other labels than ours: delete it and run the row again.")
    said = {key: value[order] for key, value in theirs.items() if key.startswith("probability_")}
    return {**theirs, **said, "name": theirs["name"][order], "label": theirs["label"][order]}


def check(what: str, met: bool) -> dict[str, Any]:
    """Whether something that was set out to be reached was."""
    return {"what": what, "met": bool(met)}
