"""Scores a run's best checkpoint on its own data or on other shards."""

import json
from typing import Any

import jax.numpy as jnp
from etils import epath

from avemo import tasks
from avemo.data import mixture
from avemo.evaluation import adaptation
from avemo.metrics import shared_classes
from avemo.runs import checkpoints, installed, run_folder
from avemo.training import loop
from media.errors import UserError, unknown


def evaluate(
    workdir: str,
    data: str | None = None,
    split: str | None = None,
    flip: bool = False,
    output: str | None = None,
    adapt: str = "",
) -> dict[str, dict[str, float]]:
    """Evaluates a run without any flag of its training.

    The data may be another corpus. Of classes that only one of run and data knows, records are left out and
    probabilities dropped (`avemo.metrics.shared_classes`); a run of faces scores clips by the mean over their frames.

    Args:
      workdir: run folder, or the name of a released run, which comes without its data.
      data: prepared shards; by default those that the run was trained on. On others, a student is not compared with its
        teacher.
      split: one split; by default all but `train` (or `train` where there is nothing else).
      flip: of faces: the mean over each picture and its mirror image.
      output: folder for the predictions, `SPLIT.npz`; by default `predictions/` of the run where `data` is its own.
      adapt: of faces: `statistics`, `person` or both with a comma: fitted to the people of each split without their
        labels (`avemo.evaluation.adaptation`).

    Returns:
      Metrics by split; also written to `evaluation.json` in the run folder, with the data's fingerprint.

    Raises:
      UserError: no checkpoint, no such data or split, or data of another kind.
    """
    workdir = installed.find(workdir)
    config, step, variables = checkpoints.load(workdir)
    if data is None and checkpoints.released(workdir):
        raise UserError(f"{workdir} is a released run, which has no data with it: pass --data=SHARDS.")
    names = run_folder.class_names(workdir) if data is not None else ()
    kinds = adaptation.parse(adapt)
    task = tasks.make(config, data=data, class_names=names, flip=flip, per_person="person" in kinds)
    if kinds and (config.task not in ("teacher", "student") or len(task.data) > 1):
        raise UserError("--adapt is for runs of faces (teacher, student), on one data set: pass --data=SHARDS.")
    available = sorted(set().union(*(set(mixture.splits(path)) for path in task.data.values())))
    if split is not None and split not in available:
        raise unknown("split", split, available)
    chosen = [split] if split else [s for s in available if s != "train"] or available
    run = loop.make_evaluator(task, config)
    results: dict[str, dict[str, float]] = {}
    for name in chosen:
        fitted = dict(variables)
        if "statistics" in kinds:
            (folder,) = task.data.values()
            fitted = adaptation.statistics(config, variables, adaptation.faces(folder, name, config.model.image_size))
        params = fitted.pop("params")
        state = tasks.TrainState(jnp.asarray(step), params, fitted, {}, {})
        try:
            results[name], predictions = run(state, name)
        except UserError:
            if split is not None or len(chosen) == 1:
                raise
            continue  # e.g. a test split whose labels are not public
        if output is not None:
            loop.save_predictions(epath.Path(output), name, predictions)
        elif data is None and not flip and not kinds:
            loop.save_predictions(epath.Path(workdir) / "predictions", name, predictions)
    if not results:
        raise UserError(f"no split of {', '.join(task.data.values())} has labels to score.")
    entry: dict[str, Any] = {
        "step": int(step),
        "data": {k: mixture.fingerprint(v) for k, v in task.data.items()},
        "paths": dict(task.data),
        **({"classes": list(shared_classes.shared(names, task.class_names))} if _differ(names, task) else {}),
        **({"flip": True} if flip else {}),
        **({"adapt": list(kinds)} if kinds else {}),
        "metrics": results,
    }
    loop.write_atomically(epath.Path(workdir) / "evaluation.json", json.dumps(entry, indent=2, default=float) + "\n")
    return results


def _differ(names: tuple[str, ...], task: tasks.Task) -> bool:
    return bool(names and task.class_names) and names != task.class_names
