"""The stages by name: teacher, student, audio, audiovisual, end_to_end."""

import importlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from avemo.tasks.base import Task, TrainState
from media.errors import UserError, unknown

TASKS = {
    "teacher": "expression",
    "student": "expression",
    "audio": "audio",
    "audiovisual": "audiovisual",
    "end_to_end": "end_to_end",
}


def make(
    config: ConfigDict,
    *,
    data: str | None = None,
    class_names: Sequence[str] = (),
    flip: bool = False,
    per_person: bool = False,
) -> Task:
    """Builds the task that `config.task` names.

    Args:
      config: the run's config.
      data: a data folder that replaces the config's own for evaluation.
      class_names: of the run, where `data` may have others (`avemo.metrics.shared_classes`); empty: those of the data.
      flip: evaluate faces together with their mirror images.
      per_person: evaluate clips by faces less what each person's say on average (`avemo.evaluation.adaptation`).

    Raises:
      UserError: an unknown task, or a config field the task needs is missing.
    """
    name = config.get("task")
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    module = importlib.import_module(f"avemo.tasks.{TASKS[name]}")
    options: dict[str, Any] = {"data": data, "class_names": tuple(class_names)}
    for option, chosen, what in (("flip", flip, "mirror images are"), ("per_person", per_person, "--adapt is")):
        if chosen and TASKS[name] != "expression":
            raise UserError(f"{what} for runs of faces (teacher, student), this is one of task {name!r}.")
        if chosen:
            options[option] = True
    try:
        return module.make(config, **options)
    except AttributeError as error:
        # ConfigDict raises AttributeError for an absent field; anything else is ours to fix.
        if "field" in str(error) or "'ConfigDict'" in str(error) or "did you mean" in str(error).lower():
            raise UserError(f"the config of task {name!r} lacks a field: {error}") from error
        raise


__all__ = ["TASKS", "Task", "TrainState", "make"]
