"""The process: cluster, compilation cache, log level. Called once by the command line."""

import logging
import os
import warnings
from collections.abc import Mapping

import jax
from etils import epath

from media.errors import UserError


class Preempted(Exception):
    """SIGTERM arrived; the state is saved and the run can be resumed by the same command."""


# Where one of these is set, the host is part of a cluster that `jax.distributed` knows how to join. The last is ours,
# for a TPU slice made of VMs, whose environment does not tell it from a single host (docs/cloud_tpu.md).
_CLUSTER = (
    "MEGASCALE_COORDINATOR_ADDRESS",
    "OMPI_MCA_orte_hnp_uri",
    "JAX_COORDINATOR_ADDRESS",
    "AVEMO_DISTRIBUTED",
)


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several: a TPU slice's host, a Slurm step's task, or one of the above."""
    several_tpu_hosts = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    # The step's tasks, not the job's nodes: one `srun` task a GPU on one node is a cluster, a batch script is not.
    several_slurm_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1") or 1) > 1
    return several_tpu_hosts or several_slurm_tasks or any(environment.get(name) for name in _CLUSTER)


def _place(environment: Mapping[str, str]) -> dict[str, int]:
    """Which of how many processes this is, where `JAX_COORDINATOR_ADDRESS` alone says that there are several."""
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
    """Lets XLA:CPU use vectors of 512 bits where the processor has them, unless `XLA_FLAGS` says otherwise.

    To be called before JAX's first array: flags are read once. Accelerators do not look at it. A tenth of the time of a
    GRU and of the compact student (docs/speed.md).
    """
    name, flags = "--xla_cpu_prefer_vector_width", os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}=512".strip()


def make_host_devices(count: int | None) -> None:
    """Makes `count` JAX devices of this host's cores, which a batch is split over where there is no accelerator.

    To be called before JAX's first array. XLA:CPU runs one program's convolutions of few channels on one core; two
    programs side by side take two (docs/speed.md).

    Raises:
      UserError: `count` is below 1.
    """
    if count is None:
        return
    if count < 1:
        raise UserError(f"--host_devices={count}: takes 1 or more; this host has {os.cpu_count()} cores.")
    jax.config.update("jax_num_cpu_devices", count)


def start(host_devices: int | None = None) -> None:
    """Joins the cluster where there is one, and keeps third parties' chatter out of the log."""
    prefer_wide_vectors()
    make_host_devices(host_devices)
    if in_cluster():
        jax.distributed.initialize(**_place(os.environ))
    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    for name in ("absl", "jax", "orbax", "tensorboardX", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR if name == "absl" else logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Sharding info not provided when restoring.*")


def cache_compilations(workdir: str | epath.Path) -> None:
    """Keeps compiled programs in the run folder, unless a cache folder is set already (`JAX_COMPILATION_CACHE_DIR`)."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(epath.Path(workdir) / "compilation_cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
