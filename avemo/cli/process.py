"""The process of a command: cluster, devices, log level."""

import logging
import os
import warnings
from collections.abc import Mapping

import jax

from avemo.ops import hardware
from media import quiet_failures
from media.errors import UserError

logger = logging.getLogger(__name__)

# If one of these is set, the host is part of a cluster that `jax.distributed` knows how to join. The last is ours, for
# a TPU slice made of VMs: their environment looks like that of a single host (docs/cloud_tpu.md).
_CLUSTER = (
    "MEGASCALE_COORDINATOR_ADDRESS",
    "OMPI_MCA_orte_hnp_uri",
    "JAX_COORDINATOR_ADDRESS",
    "AVEMO_DISTRIBUTED",
)


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several: a host of a TPU slice, a task of a Slurm step, or one of the above."""
    several_tpu_hosts = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    # The step's tasks, not the job's nodes: one `srun` task per GPU on one node is a cluster, a batch script is not.
    several_slurm_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1") or 1) > 1
    return several_tpu_hosts or several_slurm_tasks or any(environment.get(name) for name in _CLUSTER)


def place(environment: Mapping[str, str]) -> dict[str, int]:
    """The number of processes and this one's number, if only `JAX_COORDINATOR_ADDRESS` says that there is a cluster.

    Raises:
      UserError: the variables are incomplete.
    """
    if not environment.get("JAX_COORDINATOR_ADDRESS") or not environment.get("JAX_NUM_PROCESSES"):
        return {}  # the cluster's own variables say so
    try:
        return {
            "num_processes": int(environment["JAX_NUM_PROCESSES"]),
            "process_id": int(environment["JAX_PROCESS_ID"]),
        }
    except (KeyError, ValueError) as error:
        raise UserError(
            "JAX_NUM_PROCESSES is set: set JAX_PROCESS_ID to this process's number, from 0, too; both are integers."
        ) from error


def prefer_wide_vectors() -> None:
    """Lets XLA:CPU use vectors of 512 bits if the processor has them, unless `XLA_FLAGS` says otherwise.

    Call it before JAX's first array: flags are read once. Accelerators ignore it. It saves a tenth of the time of a GRU
    and of the compact student (docs/speed.md).
    """
    name, flags = "--xla_cpu_prefer_vector_width", os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}=512".strip()


def make_host_devices(count: int | None) -> None:
    """Makes `count` JAX devices from this host's cores; without an accelerator, a batch is split over them.

    Call it before JAX's first array. XLA:CPU runs convolutions with few channels on one core; two programs side by side
    use two (docs/speed.md).

    Raises:
      UserError: `count` is below 1.
    """
    if count is None:
        return
    if count < 1:
        raise UserError(f"--host_devices={count}: takes 1 or more; this host has {os.cpu_count()} cores.")
    jax.config.update("jax_num_cpu_devices", count)


def check_platforms() -> None:
    """Checks that JAX finds the platforms that it is told to use.

    Raises:
      UserError: `JAX_PLATFORMS` names one that is not there.
    """
    wanted = jax.config.jax_platforms  # type: ignore[attr-defined]  # options are defined at run time
    if not wanted:
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, bare, if the platform's plugin is not installed
        reason = " ".join(str(error).split()) or "its plugin is not installed"
        raise UserError(
            f"JAX_PLATFORMS={wanted} names a platform that JAX cannot use here ({reason}): unset it, or set it to cpu."
        ) from error


def _says_more_than_hardware(record: logging.LogRecord) -> bool:
    """False for what JAX warns of while it looks for devices: `hardware.unused` says it better."""
    return record.module != "xla_bridge" or record.levelno >= logging.ERROR


def start(host_devices: int | None = None, accelerator: bool = True) -> None:
    """Joins the cluster if there is one, keeps other libraries' messages out of the log, and names the devices.

    Args:
      host_devices: see `make_host_devices`.
      accelerator: whether to take an accelerator. A command that computes little must not: another one may be using it.
    """
    prefer_wide_vectors()
    make_host_devices(host_devices)
    if not accelerator:
        jax.config.update("jax_platforms", "cpu")
    if in_cluster():
        found = place(os.environ)
        jax.distributed.initialize(num_processes=found.get("num_processes"), process_id=found.get("process_id"))
    check_platforms()
    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    quiet_failures.install()
    for name in ("jax", "orbax", "tensorboardX", "grain"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_more_than_hardware)
    warnings.filterwarnings("ignore", message=".*Sharding info not provided when restoring.*")
    logger.info("on %s", hardware.summary())
    missed = hardware.unused() if accelerator else None
    if missed:
        logger.warning("warning: %s", missed)
