"""SIGTERM: save and leave, at the same step in every process."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def catch_sigterm() -> Iterator[Callable[[int], bool]]:
    """Gives `stop(step)`: whether to save and leave before this step, the same step in every process."""
    if jax.process_count() > 1:
        # The signal reaches the processes at different steps; JAX's own handler agrees on one.
        # It agrees on the number after the highest, so it counts how often it was asked, not steps.
        asked = itertools.count(1)
        yield lambda step: multihost_utils.reached_preemption_sync_point(next(asked))
        return
    received: list[bool] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread (a notebook, a test): no handler, no preemption
        yield lambda step: False
        return
    try:
        yield lambda step: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
