"""The one exception that is meant for the user, and the registry whose errors list what is known."""

import difflib
from collections.abc import Callable, Iterable, Iterator


class UserError(Exception):
    """Something the user can put right: the message names the file or field and the remedy, on one line.

    The command lines print it as `error: ...` and exit with status 2; nothing else is printed.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name outside a known set: lists the set and the nearest name."""
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}.")


class Registry:
    """Names to factories of one kind (`fusion`, `trunk`, `corpus`), chosen by a string in a config.

    Usage: `FUSIONS = Registry("fusion")`, `@FUSIONS.register("gmu")`, `FUSIONS["gmu"]`.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Callable] = {}

    def register(self, name: str) -> Callable[[Callable], Callable]:
        """Returns a decorator that enters its argument under `name`; a name can be taken once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")

        def enter(factory: Callable) -> Callable:
            self._entries[name] = factory
            return factory

        return enter

    def __getitem__(self, name: str) -> Callable:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


class BadItem(Exception):
    """An item that cannot be read: it is skipped, counted as a failure and listed in `skipped.jsonl`."""


class Dropped(Exception):
    """An item that the corpus' own rules leave out (no face, raters disagree, dead link): tallied, not a failure.

    The message is the reason and should be one of few: the card counts them.
    """
