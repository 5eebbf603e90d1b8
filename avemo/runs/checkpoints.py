"""Orbax checkpoints of a run: the state, the input iterator's position and the config; latest and best are kept.

`load(workdir)` needs no flags, no accelerator and no knowledge of the devices that wrote the run. A released run
(`avemo.release`) has one file, `weights.npz`, in place of checkpoints.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from avemo import configuration
from avemo.ops import parallel
from avemo.runs import run_folder, weights
from media.errors import UserError

logger = logging.getLogger(__name__)
managers = ocp.checkpoint_managers


def _folder(workdir: str | epath.Path) -> epath.Path:
    # Orbax wants absolute local paths.
    workdir = epath.Path(workdir)
    return (workdir if "://" in str(workdir) else workdir.absolute()) / "checkpoints"


def manager(workdir: str | epath.Path, best: str | None = None) -> ocp.CheckpointManager:
    """The checkpoint manager of a training run.

    Args:
      workdir: run folder.
      best: metric, `split/name`, by which the best checkpoint is chosen (higher is better); None: the latest is.

    Returns:
      A manager that keeps the two latest checkpoints and the best one. A checkpoint without readable metrics (one that
      was being deleted when the run was killed) counts as no best one.
    """
    policies = [managers.LatestN(2)]
    if best:
        policies.append(
            managers.BestN(
                get_metric_fn=lambda metrics: metrics.get(best, -np.inf), n=1, keep_checkpoints_without_metrics=False
            )
        )
    if jax.process_index() == 0:
        _set_aside_unreadable_metrics(_folder(workdir))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("unreadable metrics are set aside")
    options = ocp.CheckpointManagerOptions(
        preservation_policy=managers.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
        best_fn=(lambda metrics: metrics.get(best, -np.inf)) if best else None,
        # Made in the background, a folder is at times not there yet when its first file is written.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    return ocp.CheckpointManager(_folder(workdir), options=options)


def _set_aside_unreadable_metrics(folder: epath.Path) -> None:
    """Removes metrics that are no JSON: the manager reads those of every checkpoint, and would not open."""
    for path in folder.glob("*/metrics/metrics") if folder.exists() else ():
        try:
            json.loads(path.read_text())
        except ValueError:
            logger.warning("%s cannot be read; its checkpoint is kept without metrics.", path)
            path.parent.rmtree()


def save(
    checkpoints: ocp.CheckpointManager,
    step: int,
    state: Any,
    data: dict[str, Any],
    config: ConfigDict,
    metrics: dict[str, float] | None,
) -> None:
    """Starts an asynchronous save of `state`, the iterator state `data` (JSON) and the config at `step`."""
    checkpoints.save(
        step,
        metrics=metrics,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(parallel.replicate(state)),
            data=ocp.args.JsonSave(data),
            config=ocp.args.JsonSave(configuration.to_dict(config)),
        ),
    )


def restore_latest(checkpoints: ocp.CheckpointManager, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores the latest readable checkpoint; a damaged one is reported and the one before it is used.

    Args:
      checkpoints: the run's manager.
      like: a state of the shapes and shardings wanted (a freshly initialised one).

    Returns:
      `(step, state, data)`, or None where the run has no checkpoint.
    """
    steps = sorted(checkpoints.all_steps(), reverse=True)
    for step in steps:
        try:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
            restored = checkpoints.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
            )
            return step, restored["state"], restored["data"]
        except Exception as error:  # whatever is broken inside, the remedy is the same
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            logger.warning(
                "checkpoint %d of %s cannot be read (%s); trying the one before.", step, checkpoints.directory, reason
            )
            checkpoints.delete(step)
    if steps:
        raise UserError(f"no checkpoint in {checkpoints.directory} can be read: use a new --workdir.")
    return None


def load(workdir: str | epath.Path, which: str = "best") -> tuple[ConfigDict, int, dict[str, Any]]:
    """Opens a run's checkpoint on the host, whatever devices wrote it.

    Args:
      workdir: run folder, local or gs://.
      which: "best" (by the run's own metric, else the latest) or "latest".

    Returns:
      `(config, step, variables)`; variables is `{"params": ..., **model state}` of NumPy arrays.

    Raises:
      UserError: the folder is no run, or has no checkpoint.
    """
    workdir = epath.Path(workdir)
    config = configuration.from_json(workdir / "config.json")
    if released(workdir):
        return config, *weights.read(workdir / weights.FILENAME)
    missing = UserError(f"{workdir} has no checkpoint yet: let `launch.py train` reach its first one.")
    if not (workdir / "checkpoints").exists():
        raise missing
    best = config.get("best_metric") if which == "best" else None
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
    options = ocp.CheckpointManagerOptions(
        read_only=True, best_fn=(lambda metrics: metrics.get(best, -np.inf)) if best else None
    )
    reader = ocp.CheckpointManager(
        _folder(workdir), options=options, item_handlers={**handlers, "config": ocp.JsonCheckpointHandler()}
    )
    with reader:
        step = reader.best_step() if best else None
        step = reader.latest_step() if step is None else step
        if step is None:
            raise missing
        try:
            tree = reader.item_metadata(step)["state"].tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restore = ocp.args.PyTreeRestore(restore_args=arguments)
            state = reader.restore(step, args=ocp.args.Composite(state=restore))["state"]
        except Exception as error:
            raise UserError(
                f"checkpoint {step} of {workdir} cannot be read ({type(error).__name__}): copy the run again."
            ) from error
    variables = state.get("ema") or {"params": state["params"], **(state["model_state"] or {})}
    return config, step, variables


def open_run(workdir: str, role: str, tasks: Sequence[str]) -> tuple[ConfigDict, dict[str, Any]]:
    """Loads the config and the best variables of a run, on the host.

    Args:
      workdir: run folder.
      role: what the run is for, for the error.
      tasks: tasks of which the run must be one.

    Raises:
      UserError: `workdir` is not a run, has no checkpoint, or is a run of another task.
    """
    config, _, variables = load(run_folder.require(workdir, role))
    if config.get("task") not in tasks:
        raise UserError(
            f"{workdir} is a run of task {config.get('task')!r}, not of {' or '.join(tasks)}: name another run folder."
        )
    return config, variables


def released(workdir: str | epath.Path) -> bool:
    """Whether a run folder is that of a release: weights alone, no training state, no data."""
    return (epath.Path(workdir) / weights.FILENAME).exists()
