"""Scores of a state on a split, over all devices; and the result of a finished run."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo.data import mixture
from avemo.ops import parallel
from avemo.runs import checkpoints
from avemo.runs.run_folder import environment, save_predictions
from avemo.tasks.base import Task, TrainState
from media.files import write_atomically


def make_evaluator(task: Task, config: ConfigDict) -> Callable:
    """Returns `evaluate(state, split) -> (metrics, predictions)` with the prediction mapped over the devices."""
    mapped = parallel.map_step(
        lambda variables, batch, _: task.predict(variables, batch),
        config.parallel,
        donate_state=False,
        gather_outputs=True,
    )

    def predict(variables: Any, batch: Any) -> Any:
        rows = len(jax.tree.leaves(batch)[0])
        padding = -rows % jax.local_device_count()
        batch = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], padding, 0)]) if padding else x, batch)
        out = parallel.unshard(mapped(variables, parallel.shard_batch(batch, config.parallel), {}), config.parallel)
        return jax.tree.map(lambda x: x[:rows], out)

    def evaluate(state: TrainState, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        # Put once: every batch would otherwise carry the weights over to the devices again.
        variables = parallel.replicate(state.variables)
        return task.evaluate(predict, variables, split)

    return evaluate


def finish(
    task: Task, config: ConfigDict, workdir: epath.Path, prints: dict[str, str], evaluate: Callable, seconds: float
) -> dict[str, Any]:
    """Scores the best checkpoint on every split there is, and writes predictions and `result.json`."""
    _, step, variables = checkpoints.load(workdir)
    params = variables.pop("params")
    state = TrainState(jnp.asarray(step), params, variables, {}, {})
    available = set.intersection(*(set(mixture.splits(path)) for path in task.data.values())) if task.data else set()
    metrics = {}
    for split in sorted({*task.eval_splits, *(available - {"train"})}):
        metrics[split], predictions = evaluate(state, split)
        save_predictions(workdir / "predictions", split, predictions)
    result = {
        "task": task.name,
        "step": config.steps,
        "evaluated_step": int(step),
        "metrics": metrics,
        "data": prints,
        "weights": dict(task.weights),
        "class_names": list(task.class_names),
        "parameters": int(sum(p.size for p in jax.tree.leaves(params))),
        "seconds": round(seconds, 1),
        "environment": environment(),
    }
    if jax.process_index() == 0:
        task.on_finish(workdir, state.variables, result)
        write_atomically(workdir / "result.json", json.dumps(result, indent=2, default=float) + "\n")
    return result
