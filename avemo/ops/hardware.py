"""What a command runs on, and which accelerators of the machine JAX cannot use."""

import os
import pathlib
import re

import jax

_GOOGLE = "0x1ae0"  # PCI vendor of a TPU


def summary() -> str:
    """One line that names the devices, how many there are, and their memory: `2 x NVIDIA H200, 131.2 GiB each`."""
    devices = jax.local_devices()
    first = devices[0]
    stats = first.memory_stats() or {} if first.platform != "cpu" else {}
    memory = f", {stats['bytes_limit'] / 2**30:.1f} GiB each" if "bytes_limit" in stats else ""
    kind = f"{os.cpu_count()} CPU cores as {len(devices)} device" if first.platform == "cpu" else first.device_kind
    count = "" if first.platform == "cpu" else f"{len(devices)} x "
    several = f"; {jax.process_count()} processes, {jax.device_count()} devices" if jax.process_count() > 1 else ""
    plural = "s" if first.platform == "cpu" and len(devices) > 1 else ""
    return f"{count}{kind}{plural}{memory}, jax {jax.__version__}{several}"


def unused(root: str | pathlib.Path = "/") -> str | None:
    """One line on an accelerator that the machine has and JAX does not use, with the command that mends it.

    Args:
      root: where `/proc`, `/dev` and `/sys` lie.

    Returns:
      None if JAX uses an accelerator, if there is none, or if `JAX_PLATFORMS` asks for the CPU.
    """
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return None
    root = pathlib.Path(root)
    version = root / "proc" / "driver" / "nvidia" / "version"
    if version.exists() or (root / "dev" / "nvidia0").exists():
        return _advice("an NVIDIA GPU", _cuda(version))
    if _has_tpu(root):
        return _advice("a TPU", "tpu")
    return None


def _advice(what: str, extra: str) -> str:
    return f'this machine has {what} that JAX cannot use: pip install "jax[{extra}]=={jax.__version__}"'


def _cuda(version: pathlib.Path) -> str:
    """JAX's extra for the installed driver: CUDA 13 needs driver 580 or newer."""
    found = (
        re.search(r"(?:Kernel Module|x86_64|aarch64)\s+(\d{3})\.", version.read_text()) if version.exists() else None
    )
    return "cuda13" if found and int(found.group(1)) >= 580 else "cuda12"


def _has_tpu(root: pathlib.Path) -> bool:
    if (root / "dev" / "accel0").exists():
        return True
    for vendor in (root / "sys" / "bus" / "pci" / "devices").glob("*/vendor"):
        try:
            # Google's network cards have the same vendor; class 0x1200 is a processing accelerator.
            is_accelerator = (vendor.parent / "class").read_text().startswith("0x1200")
            if vendor.read_text().strip() == _GOOGLE and is_accelerator:
                return True
        except OSError:
            continue
    return False
