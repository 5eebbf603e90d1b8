"""Orbax checkpoints of a run: the state, the input position and the config. The latest two and the best are kept.

`load(workdir)` needs no flags, no accelerator and no knowledge of the devices that wrote the run. A released run
(`avemo.release`) has one file, `weights.npz`, instead of checkpoints.
"""

import functools
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
from avemo.runs import damage, digests, run_folder, weights
from media.errors import UserError

logger = logging.getLogger(__name__)
managers = ocp.checkpoint_managers


def _folder(workdir: str | epath.Path) -> epath.Path:
    # Orbax wants absolute local paths.
    workdir = epath.Path(workdir)
    return (workdir if "://" in str(workdir) else workdir.absolute()) / "checkpoints"


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    """What reads and writes the items of a checkpoint.

    Every device holds the whole state, so one of them writes it. By default Orbax has each of eight devices write an
    eighth of every array, and compiles a program per shape to cut it.
    """
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (jax.Array, handlers.ArrayHandler(use_replica_parallel=False)),
        (np.ndarray, handlers.NumpyHandler()),
    )
    state = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    return {"state": state, "data": ocp.JsonCheckpointHandler(), "config": ocp.JsonCheckpointHandler()}


def manager(workdir: str | epath.Path, best: str | None = None) -> ocp.CheckpointManager:
    """Opens the checkpoint manager of a training run.

    Args:
      workdir: run folder.
      best: metric, `split/name`, that chooses the best checkpoint (higher is better); None keeps only the latest ones.

    Returns:
      A manager that keeps the two latest checkpoints and the best one. A checkpoint without readable metrics (the run
      was killed while deleting it) is never the best.
    """
    policies = [managers.LatestN(2)]
    if best:
        policies.append(
            managers.BestN(
                get_metric_fn=lambda metrics: metrics.get(best, -np.inf), n=1, keep_checkpoints_without_metrics=False
            )
        )
    if jax.process_index() == 0:
        damage.set_aside_metrics(_folder(workdir))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("unreadable metrics are set aside")
    options = ocp.CheckpointManagerOptions(
        preservation_policy=managers.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
        best_fn=(lambda metrics: metrics.get(best, -np.inf)) if best else None,
        async_options=ocp.AsyncOptions(
            # A folder created in the background is sometimes missing when its first file is written.
            create_directories_asynchronously=False,
            # Called when all files are there, before the checkpoint gets its name.
            post_finalization_callback=functools.partial(_write_digests, _folder(workdir)),
        ),
    )
    return ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=_handlers())


def _write_digests(folder: epath.Path) -> None:
    if jax.process_index() == 0:
        for path in folder.iterdir():
            if path.name[0].isdigit() and not (path / digests.FILENAME).exists():
                digests.write(path)


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
            state=ocp.args.PyTreeSave(parallel.replicate(state)),
            data=ocp.args.JsonSave(data),
            config=ocp.args.JsonSave(configuration.to_dict(config)),
        ),
    )


def restore_latest(checkpoints: ocp.CheckpointManager, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores the latest readable checkpoint; nothing is ever deleted.

    A damaged checkpoint is reported and the one before it is used. The damaged one moves to `damaged_checkpoints/` in
    the run folder, so that training can save its step again.

    Args:
      checkpoints: the run's manager.
      like: a state of the shapes and shardings wanted (a freshly initialised one).

    Returns:
      `(step, state, data)`, or None if the run has no checkpoint.

    Raises:
      UserError: no checkpoint can be read, the storage fails, or the checkpoint is of another model.
    """
    damaged: dict[int, str] = {}
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            damage.check(epath.Path(checkpoints.directory) / str(step))
            _check_model(checkpoints, step, like)
            state, data = _restore(checkpoints, step, like)
        except (UserError, MemoryError, jax.errors.JaxRuntimeError):  # not the checkpoint's fault
            raise
        except Exception as error:  # Orbax and TensorStore have no type of error for damage
            _check_storage(checkpoints, step, error)
            damaged[step] = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            continue
        for bad, reason in damaged.items():
            logger.warning(
                "checkpoint %d of %s cannot be read (%s); trying the one before.", bad, checkpoints.directory, reason
            )
        _set_aside(checkpoints, list(damaged))
        return step, state, data
    if damaged:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise UserError(
            f"no checkpoint in {checkpoints.directory} can be read: use a new --workdir ({reasons}). "
            "Nothing was deleted."
        )
    return None


def _restore(checkpoints: ocp.CheckpointManager, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    arrays = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x), like)  # Orbax takes no scalars
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
    wanted = ocp.args.PyTreeRestore(abstract, ocp.checkpoint_utils.construct_restore_args(abstract))
    arguments = ocp.args.Composite(state=wanted, data=ocp.args.JsonRestore())
    restored = checkpoints.restore(step, args=arguments)
    return restored["state"], restored["data"]


def _check_model(checkpoints: ocp.CheckpointManager, step: int, like: Any) -> None:
    """Raises a `UserError` if the checkpoint's arrays are not those of `like`; passes if it does not list them."""
    with ocp.StandardCheckpointer() as reader:
        metadata = reader.metadata(epath.Path(checkpoints.directory) / str(step) / "state").item_metadata
    if metadata is None:
        return

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    stored, wanted = shapes(metadata.tree), shapes(like)
    differing = [f"{name} is new" for name in wanted if name not in stored]
    differing += [f"{name} is gone" for name in stored if name not in wanted]
    differing += [
        f"{name} was {list(stored[name])}, is {list(wanted[name])}"
        for name in wanted
        if name in stored and stored[name] != wanted[name]
    ]
    if differing:
        raise UserError(
            f"checkpoint {step} of {checkpoints.directory} belongs to another model ({'; '.join(differing[:4])}"
            f"{f'; and {len(differing) - 4} more' if len(differing) > 4 else ''}): use a new --workdir, or the version "
            "of the code that wrote it. Nothing was deleted."
        )


def _check_storage(checkpoints: ocp.CheckpointManager, step: int, error: Exception) -> None:
    """Raises a `UserError` if a file of the checkpoint cannot be read at all: that is not damage."""
    failure = error if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) else None
    failure = failure or damage.unreadable(epath.Path(checkpoints.directory) / str(step))
    if failure is not None:
        raise UserError(
            f"checkpoint {step} of {checkpoints.directory} cannot be read because the storage fails "
            f"({failure.strerror or failure}): check the disk, the permissions or the connection, and run again. "
            "Nothing was deleted."
        ) from error


def _set_aside(checkpoints: ocp.CheckpointManager, steps: Sequence[int]) -> None:
    """Moves damaged checkpoints to `damaged_checkpoints/` beside the manager's folder."""
    if not steps:
        return
    folder = epath.Path(checkpoints.directory)
    if jax.process_index() == 0:
        for step in steps:
            target = damage.move_aside(folder / str(step), str(step))
            logger.warning("the damaged checkpoint %d is kept as %s.", step, target)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
    checkpoints.reload()


def load(workdir: str | epath.Path, which: str = "best") -> tuple[ConfigDict, int, dict[str, Any]]:
    """Opens a run's checkpoint on the host, whatever devices wrote it.

    Args:
      workdir: run folder, local or gs://.
      which: "best" (by the run's own metric, otherwise the latest) or "latest".

    Returns:
      `(config, step, variables)`; the paths in the config are where the data and runs are now (`avemo.runs.paths`),
      and variables is `{"params": ..., **model state}` of NumPy arrays.

    Raises:
      UserError: the folder is not a run, or has no checkpoint that can be read.
    """
    workdir = epath.Path(workdir)
    config = run_folder.config_of(workdir)
    if released(workdir):
        return config, *weights.read(workdir / weights.FILENAME)
    missing = UserError(f"{workdir} has no checkpoint yet: let `launch.py train` reach its first one.")
    if not (workdir / "checkpoints").exists():
        raise missing
    best = config.get("best_metric") if which == "best" else None
    options = ocp.CheckpointManagerOptions(
        read_only=True, best_fn=(lambda metrics: metrics.get(best, -np.inf)) if best else None
    )
    try:
        reader = ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=_handlers())
        step = reader.best_step() if best else None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"the metrics of a checkpoint of {workdir} cannot be read ({type(error).__name__}): run `launch.py train` "
            "again, which sets them aside, or copy the run again."
        ) from error
    with reader:
        step = reader.latest_step() if step is None else step
        if step is None:
            raise missing
        try:
            damage.check(_folder(workdir) / str(step))
            tree = reader.item_metadata(step)["state"].tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restore = ocp.args.PyTreeRestore(restore_args=arguments)
            state = reader.restore(step, args=ocp.args.Composite(state=restore))["state"]
        except Exception as error:
            _check_storage(reader, step, error)
            reason = str(error) if isinstance(error, damage.Damaged) else type(error).__name__
            raise UserError(f"checkpoint {step} of {workdir} cannot be read ({reason}): copy the run again.") from error
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
    """Whether a run folder comes from a release: weights alone, no training state, no data."""
    return (epath.Path(workdir) / weights.FILENAME).exists()
