"""The process: cluster, compilation cache, log level. Called once by the command line."""

import logging
import os
import warnings

import jax
from etils import epath


class Preempted(Exception):
    """SIGTERM arrived; the state is saved and the run can be resumed by the same command."""


# Where one of these is set, the host is part of a cluster that `jax.distributed` knows how to join.
_CLUSTER = (
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_COORDINATOR_ADDRESS",
    "SLURM_JOB_NUM_NODES",
    "OMPI_MCA_orte_hnp_uri",
    "JAX_COORDINATOR_ADDRESS",
)


def start() -> None:
    """Joins the cluster where there is one, and keeps third parties' chatter out of the log."""
    several_tpu_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    several_slurm_nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1") or 1) > 1
    others = any(os.environ.get(name) for name in _CLUSTER if not name.startswith(("TPU", "SLURM")))
    if several_tpu_hosts or several_slurm_nodes or others:
        jax.distributed.initialize()
    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    for name in ("absl", "jax", "orbax", "tensorboardX", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR if name == "absl" else logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Sharding info not provided when restoring.*")


def cache_compilations(workdir: str | epath.Path) -> None:
    """Keeps compiled programs in the run folder, unless a cache folder is set already (`JAX_COMPILATION_CACHE_DIR`)."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(epath.Path(workdir) / "compilation_cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
