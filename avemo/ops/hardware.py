"""What a command runs on: the devices that JAX uses, those that it cannot use, their memory and their peak speed."""

import contextlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping

import jax

_GOOGLE = "0x1ae0"  # PCI vendor of a TPU
# Cloud TPU VMs, GKE and Colab set one of these.
_TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "COLAB_TPU_ADDR")
_GIB = 2**30

# Peak TFLOP/s of dense matrix products by the start of `device_kind`, the longest match first: in bfloat16, and in
# float32 as JAX multiplies by default (TF32 on NVIDIA, bfloat16 passes on a TPU). From the vendors' data sheets.
_PEAKS = {
    "NVIDIA A100": (312, 156),
    "NVIDIA A10G": (70, 35),
    "NVIDIA A30": (165, 82),
    "NVIDIA B200": (2250, 1125),
    "NVIDIA GH200": (989, 495),
    "NVIDIA H100": (989, 495),
    "NVIDIA H100 NVL": (835, 418),
    "NVIDIA H100 PCIe": (756, 378),
    "NVIDIA H200": (989, 495),
    "NVIDIA L4": (121, 60),
    "NVIDIA L40": (181, 91),
    "NVIDIA L40S": (362, 183),
    "TPU v3": (61, 61),  # one of a chip's two cores
    "TPU v4": (275, 275),
    "TPU v5": (459, 459),
    "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
    "TPU v6e": (918, 918),
}


def summary() -> str:
    """One line on kind, number and memory of the devices: `2 x NVIDIA H200, 131.2 GiB each; jax 0.10.2`."""
    devices, processes = jax.local_devices(), jax.process_count()
    several = f"; {processes} processes, {jax.device_count()} devices" if processes > 1 else ""
    if devices[0].platform == "cpu":
        plural = "s" if len(devices) > 1 else ""
        what = f"CPU, {os.cpu_count()} cores as {len(devices)} device{plural}, {_host_memory():.1f} GiB"
    else:
        limit = _statistics(devices[0]).get("bytes_limit")
        what = f"{len(devices)} x {devices[0].device_kind}" + (f", {limit / _GIB:.1f} GiB each" if limit else "")
    return f"{what}; jax {jax.__version__}{several}"


def _host_memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB


def _statistics(device: jax.Device) -> Mapping[str, int]:
    return {} if device.platform == "cpu" else device.memory_stats() or {}


def peak_memory() -> float | None:
    """The most memory that was in use on the fullest local device, GiB; None on a CPU, which does not tell."""
    found = [_statistics(device).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [value for value in found if value is not None]
    return max(known) / _GIB if known else None


def peak_flops(kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device in "bfloat16" or "float32"; None if the kind is not known, as for a CPU."""
    names = [name for name in _PEAKS if kind == name or kind.startswith((f"{name} ", f"{name}-"))]
    if not names:
        return None
    half, single = _PEAKS[max(names, key=len)]
    return 1e12 * (half if dtype == "bfloat16" else single)


@contextlib.contextmanager
def on_cpu() -> Iterator[bool]:
    """Lets JAX compute on the host's CPU inside the block, for programs that run once: it compiles them far sooner.

    Yields whether it does. It does not if `JAX_PLATFORMS` names the accelerator alone.
    """
    if jax.default_backend() == "cpu":
        yield True
        return
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        yield False
        return
    with jax.default_device(device):
        yield True


def unused(root: str | pathlib.Path = "/", environment: Mapping[str, str] = os.environ) -> str | None:
    """One line on an accelerator that the machine has and JAX does not use, with the command that mends it.

    Args:
      root: where `/proc`, `/dev` and `/sys` lie.
      environment: the environment's variables.

    Returns:
      None if JAX uses an accelerator, if there is none, or if the environment asks for the CPU or hides the GPUs.
    """
    if jax.default_backend() != "cpu" or environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return None
    root = pathlib.Path(root)
    if environment.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1"):
        driver = _nvidia_driver(root)
        if driver is not None:
            # CUDA 13 needs driver 580 or newer.
            return _advice("an NVIDIA GPU", "cuda13" if driver >= 580 else "cuda12")
    if _has_tpu(root) or any(environment.get(name) for name in _TPU_VARIABLES):
        return _advice("a TPU", "tpu")
    return None


def _advice(what: str, extra: str) -> str:
    package = "libtpu" if extra == "tpu" else f"jax-{extra}-plugin"
    try:
        installed = f" although {package} {importlib.metadata.version(package)} is installed"
    except importlib.metadata.PackageNotFoundError:
        installed = ""
    command = f'{sys.executable} -m pip install "jax[{extra}]=={jax.__version__}"'
    return f"this machine has {what} that JAX cannot use{installed}, so everything runs on the CPU. Run: {command}"


def _nvidia_driver(root: pathlib.Path) -> int | None:
    """The major version of the NVIDIA driver, 0 if it cannot be found out; None without a GPU."""
    version = root / "proc" / "driver" / "nvidia" / "version"
    if version.exists():
        found = re.search(r"(?:Kernel Module|x86_64|aarch64)\s+(\d{3})\.", version.read_text())
        return int(found.group(1)) if found else 0
    program = shutil.which("nvidia-smi")  # in a container, or under Windows, there may be no file to read
    if program:
        try:
            query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.match(r"\s*(\d{3})\.", done.stdout)
        if found and not done.returncode:
            return int(found.group(1))
    return 0 if (root / "dev" / "nvidia0").exists() else None


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
