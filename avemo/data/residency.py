"""Where a run's packed data lies while it trains: on the device, in host memory, or nowhere (read from the shards)."""

import dataclasses
import os

import jax

from media.errors import UserError, unknown

MODES = ("auto", "device", "host", "off")
DEVICE_SHARE = 0.5  # of a device's memory; the rest is for weights, activations and the compiler's scratch space
HOST_SHARE = 0.5  # of the memory that the host has left


@dataclasses.dataclass(frozen=True)
class Residency:
    """Where the data lies, and why.

    Attributes:
      mode: "device", "host" or "off".
      reason: one line for the log.
    """

    mode: str
    reason: str


def decide(wanted: str, nbytes: int, device_bytes: int | None, host_bytes: int) -> Residency:
    """Decides where packed data of `nbytes` bytes lies.

    Args:
      wanted: `data.resident`: auto, device, host or off.
      nbytes: size of all packed arrays of the run. They are replicated, so each device holds all of them.
      device_bytes: memory of one accelerator that is free, or None on a CPU, whose memory is the host's.
      host_bytes: memory that the host has left.

    Raises:
      UserError: `wanted` is none of these, or "device" is asked for where the data does not fit.
    """
    if wanted not in MODES:
        raise unknown("data.resident", wanted, MODES)
    size = f"{nbytes / 2**30:.2f} GiB packed"
    if wanted == "off":
        return Residency("off", "data.resident=off")
    fits = nbytes <= DEVICE_SHARE * (device_bytes or 0)
    if wanted == "device":
        if device_bytes is not None and not fits:
            raise UserError(
                f"data.resident=device: {size} are more than {DEVICE_SHARE:.0%} of the {device_bytes / 2**30:.1f} GiB "
                "that a device has free: use data.resident=auto or host."
            )
        return Residency("device", f"{size}; data.resident=device")
    if wanted == "host":
        return Residency("host", f"{size}; data.resident=host")
    where = "there is no accelerator" if device_bytes is None else f"a device has {device_bytes / 2**30:.1f} GiB free"
    if fits:
        return Residency("device", f"{size}; {where}")
    if nbytes <= HOST_SHARE * host_bytes:
        return Residency("host", f"{size}; {where}, the host has {host_bytes / 2**30:.1f} GiB free")
    return Residency("off", f"{size}; {where}, the host only {host_bytes / 2**30:.1f} GiB")


def without_layout(wanted: str, stream: str) -> Residency:
    """For a stream whose records have no packed form.

    Raises:
      UserError: `wanted` is not a mode, or names one that needs a packed form.
    """
    if wanted not in MODES:
        raise unknown("data.resident", wanted, MODES)
    if wanted in ("device", "host"):
        raise UserError(f"data.resident={wanted}: {stream} have no packed form here: use data.resident=auto or off.")
    return Residency("off", "they have no packed form")


def not_worth_it(drawn: int, records: int) -> Residency:
    """For a split that is larger than the run."""
    return Residency("off", f"the run draws {drawn} examples, packing would read {records}")


def not_written(error: UserError) -> Residency:
    """For a split whose packed form no folder takes."""
    return Residency("off", str(error).rstrip("."))


def device_memory(taken: int = 0) -> int | None:
    """Bytes that are free on the fullest local accelerator; None on a CPU or where the platform does not tell.

    `taken` bytes of the share for data are spoken for already.
    """
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {} if device.platform != "cpu" else {}
        if "bytes_limit" in stats:
            free.append(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return max(0, min(free) - round(taken / DEVICE_SHARE)) if free else None


def host_memory() -> int:
    """Bytes that the host can still give, page cache included."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
