"""Scores a run's best checkpoint on its own data or on other shards of the same kind."""

import json
from typing import Any

import jax.numpy as jnp
from etils import epath

from avemo import checkpoints, mixture, tasks, train
from avemo.errors import UserError, unknown
from avemo.release import cache


def evaluate(workdir: str, data: str | None = None, split: str | None = None) -> dict[str, dict[str, float]]:
    """Evaluates a run without any flag of its training.

    Args:
      workdir: run folder, or the name of a released run, which comes without its data (and a student without its
        teacher, with which it is then not compared).
      data: prepared shards; by default those that the run was trained on.
      split: one split; by default all but `train` (or `train` where there is nothing else).

    Returns:
      Metrics by split; also written to `evaluation.json` in the run folder, with the data's fingerprint.

    Raises:
      UserError: no checkpoint, no such data or split, or data of another kind.
    """
    workdir = cache.find(workdir)
    config, step, variables = checkpoints.load(workdir)
    if checkpoints.released(workdir):
        if data is None:
            raise UserError(f"{workdir} is a released run, which has no data with it: pass --data=SHARDS.")
        config.task = "teacher" if config.task == "student" else config.task
    task = tasks.make(config, data=data)
    available = sorted(set().union(*(set(mixture.splits(path)) for path in task.data.values())))
    if split is not None and split not in available:
        raise unknown("split", split, available)
    chosen = [split] if split else [s for s in available if s != "train"] or available
    params = variables.pop("params")
    state = tasks.TrainState(jnp.asarray(step), params, variables, {}, {})
    run = train.make_evaluator(task, config)
    results: dict[str, dict[str, float]] = {}
    for name in chosen:
        try:
            results[name], predictions = run(state, name)
        except UserError:
            if split is not None or len(chosen) == 1:
                raise
            continue  # e.g. a test split whose labels are not public
        if data is None:
            train.save_predictions(epath.Path(workdir), name, predictions)
    if not results:
        raise UserError(f"no split of {', '.join(task.data.values())} has labels to score.")
    entry: dict[str, Any] = {
        "step": int(step),
        "data": {k: mixture.fingerprint(v) for k, v in task.data.items()},
        "paths": dict(task.data),
        "metrics": results,
    }
    train.write_atomically(epath.Path(workdir) / "evaluation.json", json.dumps(entry, indent=2, default=float) + "\n")
    return results
