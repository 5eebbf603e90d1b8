"""The exceptions with a meaning: the user's mistakes, a preempted run, and items of a corpus that give no record."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: the message names the file or field and the remedy, on one line.

    The command lines print it as `error: ...` and exit with status 2; they print nothing else. Line breaks and
    control characters, which names in a file of somebody else may have, are replaced.
    """

    def __init__(self, message: object):
        super().__init__("".join(c if c.isprintable() else " " for c in " ".join(str(message).splitlines())))


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Returns the error for a name outside a known set; it lists the set and suggests the nearest name."""
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}.")


def not_installed(error: ModuleNotFoundError) -> UserError:
    """Returns the error for a package that is not installed; raises `error` again if the module is one of ours."""
    package = (error.name or "").split(".")[0]
    if package in ("", "avemo", "media", "data_prep", "configs", "benchmarks"):
        raise error
    install = "opencv-python-headless" if package == "cv2" else "-r requirements.txt"
    return UserError(f"the package {package!r} is not installed: pip install {install}")


class Preempted(Exception):
    """SIGTERM arrived. The state is saved; the same command resumes the run."""


class BadItem(Exception):
    """An item that cannot be read: it is skipped, counted as a failure and listed in `skipped.jsonl`."""


class Dropped(Exception):
    """An item that the rules of its corpus leave out (no face, raters disagree, dead link): counted, not a failure.

    The data set card counts items by `reason`, so use few different reasons.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
