"""Timing two calls against each other."""

import dataclasses
import statistics
import time
from collections.abc import Callable

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
      name: its name on the command line.
      what: what is timed, in words.
      required: the ratio that must be reached.
      aim: the ratio to aim for, if any.
      build: returns our call and the other one.
      pairs: how often the two are timed.
    """

    name: str
    what: str
    required: float
    aim: float | None
    build: Callable[[], tuple[Call, Call]]
    pairs: int = 7


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall-clock and processor seconds of one call."""

    wall: float
    processor: float


def timed(call: Call) -> Timing:
    """Times one call."""
    processor, wall = time.process_time(), time.perf_counter()
    call()
    return Timing(time.perf_counter() - wall, time.process_time() - processor)


def alternate(ours: Call, theirs: Call, pairs: int) -> tuple[list[Timing], list[Timing]]:
    """Times both in turns after one untimed call of each; the two take turns at going first."""
    ours(), theirs()
    results: tuple[list[Timing], list[Timing]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            results[side].append(timed((ours, theirs)[side]))
    return results


def ratio(ours: list[Timing], theirs: list[Timing], field: str) -> float:
    """Returns the median over pairs of their time divided by ours."""
    return statistics.median(getattr(b, field) / getattr(a, field) for a, b in zip(ours, theirs, strict=True))
