"""The fastest a step can run on a chip: its arithmetic, memory traffic and collectives over the chip's peaks.

This is a bound, not a forecast: each of the three sides runs at its peak, and the other two overlap it entirely.
"""

import dataclasses
import math
import re

from media.errors import unknown


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator as XLA sees it. For v4 that is one of a chip's two cores, as `libtpu` describes a v4 slice.

    Attributes:
      flops: peak bfloat16 FLOP/s. TPUs multiply float32 at default precision in bfloat16 passes as well.
      hbm_bytes: memory that a program may use, as the compiler of libtpu 0.0.42 reports when it runs out.
      hbm_bandwidth: bytes/s.
      link_bandwidth: bytes/s out of the chip into the slice's interconnect.
    """

    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float


_GIB = 2**30
# Peaks: cloud.google.com/tpu/docs, "System architecture" of each version.
CHIPS = {
    "v4": Chip(137.5e12, 15.25 * _GIB, 614e9, 150e9),
    "v5e": Chip(197e12, 15.75 * _GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95.74 * _GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 31.25 * _GIB, 1640e9, 448e9),
}


def chip(topology: str) -> Chip:
    """The chip of a topology such as `v5e:2x4`.

    Raises:
      UserError: `CHIPS` has no such version.
    """
    version = re.split("[:_=]", topology)[0]
    if version not in CHIPS:
        raise unknown("TPU version", version, CHIPS)
    return CHIPS[version]


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a step and what sets it.

    Attributes:
      seconds: least time by side: `compute`, `memory`, `interconnect`.
      side: the side that binds.
      examples_per_second: rate of one chip at that bound.
    """

    seconds: dict[str, float]
    side: str
    examples_per_second: float


def bound(on: Chip, *, flops: float, bytes_moved: float, reduced_bytes: float, devices: int, examples: float) -> Bound:
    """The roofline bound of one device's step.

    Args:
      on: the chip.
      flops: operations of one device's step.
      bytes_moved: bytes to and from the chip's memory.
      reduced_bytes: bytes of the operands of all-reduces; a ring sends 2·(n − 1)/n of them.
      devices: the number of devices n.
      examples: examples per device in the step.
    """
    seconds = {
        "compute": flops / on.flops,
        "memory": bytes_moved / on.hbm_bandwidth,
        "interconnect": 2 * (devices - 1) / devices * reduced_bytes / on.link_bandwidth,
    }
    side = max(seconds, key=lambda side: seconds[side])
    return Bound(seconds, side, examples / seconds[side] if seconds[side] else math.inf)
