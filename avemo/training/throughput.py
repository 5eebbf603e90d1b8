"""What `timing` in a run's log says: examples/s, idle shares, memory, and MFU."""

import logging
import time
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from avemo.ops import hardware
from avemo.training.device_clock import DeviceClock

logger = logging.getLogger(__name__)


class Trained(Protocol):
    """What is read of a `loop.Program`."""

    config: ConfigDict
    start: int
    examples: int

    def flops(self, count: int, batches: Any) -> float:
        """Operations of one device in the steps of a dispatch."""


class Throughput:
    """Measures the steps between two lines of the log.

    Args:
      program: what is trained.
      clock: which tells when the devices were idle.
    """

    def __init__(self, program: Trained, clock: DeviceClock):
        self._program, self._clock = program, clock
        self._tick, self._step = time.monotonic(), program.start
        kind = jax.local_devices()[0].device_kind
        self._peak = hardware.peak_flops(kind, program.config.model.get("dtype") or "float32")
        if self._peak is None and jax.default_backend() != "cpu":
            logger.info("the peak speed of %s is not known: timing has no mfu.", kind)
        self._flops: float | None = None

    def count(self, steps: int, batches: Any) -> None:
        """Counts the operations of a step, once, from a dispatch of some steps, which was traced before."""
        if self._peak is not None and self._flops is None:
            self._flops = self._program.flops(steps, batches) / steps

    def restart(self) -> None:
        """Leaves the time since the last `lap` out of the next one's rate."""
        self._tick = time.monotonic()

    def lap(self, number: int) -> dict[str, float]:
        """The timing of the steps since the last call, once `number` steps are done.

        Returns:
          `examples_per_second`, without evaluations and checkpoints; the shares of `DeviceClock.shares`;
          `peak_memory_gib` of the fullest device; and `mfu`, the network's operations per second as a share of the
          devices' peak. A CPU has neither of the last two.
        """
        now = time.monotonic()
        steps_per_second = (number - self._step) / max(now - self._tick, 1e-9)
        self._tick, self._step = now, number
        timing = {"examples_per_second": self._program.examples * steps_per_second, **self._clock.shares(number)}
        memory = hardware.peak_memory()
        if memory is not None:
            timing["peak_memory_gib"] = memory
        if self._flops is not None and self._peak is not None:
            timing["mfu"] = self._flops * steps_per_second / self._peak
        return timing
