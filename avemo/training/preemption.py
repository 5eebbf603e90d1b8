"""SIGTERM: save and leave, at the same step in every process."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def catch_sigterm() -> Iterator[Callable[[int], bool]]:
    """Gives `stop(step)`: whether to save and leave before this step, the same step in every process."""
    if jax.process_count() > 1:
        # The signal reaches the processes at different steps; JAX's own handler agrees on one.
        yield multihost_utils.reached_preemption_sync_point
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
