"""The stages by name: teacher, student, audio, audiovisual, end_to_end."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from avemo.tasks import (
    audio,
    audio_data,
    audiovisual,
    audiovisual_data,
    end_to_end,
    end_to_end_data,
    expression,
    expression_data,
)
from avemo.tasks.data import Scoring, StageData, Unscorable
from avemo.tasks.stage import Stage, check_fields
from media.errors import unknown


@dataclasses.dataclass(frozen=True)
class Task:
    """How to make the stage that `config.task` names, and its data.

    Attributes:
      required: fields that the config must have.
      make: makes the stage from its config.
      open: opens the stage's data, its own or another folder's.
    """

    required: tuple[str, ...]
    make: Callable[[ConfigDict], Stage]
    open: Callable[[Any, str | None], StageData]


_EXPRESSION = Task(expression.ExpressionStage.required, expression.make, expression_data.open_data)
TASKS = {
    "teacher": _EXPRESSION,
    "student": _EXPRESSION,
    "audio": Task(audio.AudioStage.required, audio.make, audio_data.open_data),
    "audiovisual": Task(audiovisual.AudioVisualStage.required, audiovisual.make, audiovisual_data.open_data),
    "end_to_end": Task(end_to_end.EndToEndStage.required, end_to_end.make, end_to_end_data.open_data),
}


def make(config: ConfigDict) -> Stage:
    """Makes the stage that `config.task` names. No data set is opened.

    Raises:
      UserError: the task is unknown, or the config lacks a field that the task requires.
    """
    name = config.get("task")
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    check_fields(config, TASKS[name].required)
    return TASKS[name].make(config)


def open_data(stage: Stage, folder: str | None = None) -> StageData:
    """Opens the data of a stage.

    Args:
      stage: the stage.
      folder: data to evaluate on in place of the config's own. It may have other classes than the run.

    Raises:
      UserError: the data is missing or does not fit the stage.
    """
    opened = TASKS[stage.name].open(stage, folder)
    if folder is None:
        opened.check()
    return opened


__all__ = ["TASKS", "Scoring", "Stage", "StageData", "Unscorable", "make", "open_data"]
