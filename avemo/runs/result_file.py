"""`result.json`: the description and scores of a finished run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from media.files import write_atomically

FILENAME = "result.json"


def make(
    task: str,
    step: int,
    evaluated_step: int,
    metrics: Mapping[str, Mapping[str, float]],
    params: Any,
    class_names: Sequence[str],
    *,
    unscored: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The contents of `result.json`.

    Args:
      task: the stage's name.
      step: the steps that were trained.
      evaluated_step: the step of the checkpoint that was scored.
      metrics: scores by split.
      params: the parameters, to be counted.
      class_names: the classes of the categorical head.
      unscored: splits that could not be scored, and why.
      **more: further entries.
    """
    return {
        "task": task,
        "step": step,
        "evaluated_step": evaluated_step,
        "metrics": dict(metrics),
        **({"unscored": dict(unscored)} if unscored else {}),
        **more,
        "class_names": list(class_names),
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(params))),
    }


def write(folder: epath.Path, result: Mapping[str, Any]) -> None:
    """Writes `result.json` into a run folder."""
    write_atomically(folder / FILENAME, json.dumps(result, indent=2, default=float) + "\n")
