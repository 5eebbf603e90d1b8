"""How long the devices had no training step to run, and what they waited for."""

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

INPUT, EVALUATION = "input", "evaluation"  # the latter with checkpoints and logs
Span = tuple[float, float]  # from, to, s


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step that is done: steps done by then, when its dispatch began, when it was done (s)."""

    number: int
    began: float
    done: float


class DeviceClock:
    """Measures the pauses between training steps. `close` it at the end.

    A thread waits for each step, so that the loop need not. Dispatching a step counts as running it. The first step,
    which is compiled, is left out.
    """

    def __init__(self) -> None:
        self._dispatched: queue.SimpleQueue[tuple[int, float, jax.Array] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._steps: list[_Step] = []  # the last of the time before, then those since
        self._over = False
        self._last = 0  # the latest that was dispatched
        self._waits: dict[str, list[Span]] = {INPUT: [], EVALUATION: []}
        self._thread = threading.Thread(target=self._watch, name="device clock", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """Marks a block in which the loop dispatches no step, because of `INPUT` or `EVALUATION`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waits[reason].append((began, time.monotonic()))

    def dispatched(self, number: int, began: float, values: Any) -> None:
        """Notes that a step is on its way.

        Args:
          number: steps done once it is done.
          began: when its dispatch began, `time.monotonic()`.
          values: its outputs.
        """
        self._last = number
        self._dispatched.put((number, began, jax.tree.leaves(values)[0]))

    def shares(self, number: int) -> dict[str, float]:
        """Waits until `number` steps are done, if so many were dispatched.

        Returns:
          Shares of the time since the last call, 0 to 1: `idle`, and what of it is due to input (`idle_input`) and
          to evaluation, checkpoints and logs (`idle_evaluation`). Empty if only the first step was done.
        """
        with self._changed:
            wanted = min(number, self._last)
            self._changed.wait_for(lambda: self._over or not wanted or any(s.number >= wanted for s in self._steps))
            steps = [step for step in self._steps if step.number <= number]
            self._steps = steps[-1:] + self._steps[len(steps) :]
        if len(steps) < 2:
            return {}
        pauses = [(a.done, b.began) for a, b in itertools.pairwise(steps) if b.began > a.done]
        seconds = {"idle": sum(end - begin for begin, end in pauses)}
        last = steps[-1].done
        for reason, waits in self._waits.items():
            seconds[f"idle_{reason}"] = _common(pauses, waits)
            self._waits[reason] = [wait for wait in waits if wait[1] > last]
        return {name: idle / (last - steps[0].done) for name, idle in seconds.items()}

    def close(self) -> None:
        """Ends the thread."""
        self._dispatched.put(None)
        self._thread.join(timeout=5)  # a step that waits for a process that has died never ends

    def _watch(self) -> None:
        # The loop meets the same error when it reads the values, and reports it.
        with contextlib.suppress(Exception):
            for number, began, output in iter(self._dispatched.get, None):
                jax.block_until_ready(output)
                with self._changed:
                    self._steps.append(_Step(number, began, time.monotonic()))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _common(pauses: list[Span], waits: list[Span]) -> float:
    """Seconds that are in both. Each list is in order and does not overlap itself."""
    total, first = 0.0, 0
    for begin, end in pauses:
        while first < len(waits) and waits[first][1] <= begin:
            first += 1
        for number in range(first, len(waits)):
            if waits[number][0] >= end:
                break
            total += min(end, waits[number][1]) - max(begin, waits[number][0])
    return total
