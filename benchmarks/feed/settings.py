"""What is trained: each task's config, at the paper's size or as a tiny network whose step is short."""

import dataclasses
import os
from collections.abc import Mapping

TASKS = ("teacher", "student", "audio", "fusion", "end_to_end")
INPUTS = ("resident", "threads", "workers")
_DATA = {
    "teacher": ("faces", "triplets"),
    "student": ("faces", "triplets", "unlabelled"),
    "audio": ("clips",),
    "fusion": ("features",),
    "end_to_end": ("clips",),
}
_NEEDS = {"student": {"teacher": "teacher"}, "end_to_end": {"fusion": "fusion"}}
_FACES = {"model.width": 0.0625, "model.repeats_35": 1, "model.repeats_17": 1, "model.neck_channels": 16}
_TINY = {
    "teacher": {**_FACES, "model.dense_layers": 1, "model.dense_growth": 8},
    "student": {**_FACES, "model.dense_layers": 1, "model.dense_growth": 8},
    "audio": {"model.width": 0.0625, "model.fc_dim": 16, "model.embedding_dim": 8},
    "fusion": {"model.fusion_args.features": 8, "model.temporal_args.features": 8},
    "end_to_end": {"data.batch.clips": 2, "data.sequence_length": 10},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
      task: the task.
      input: one of `INPUTS`.
      workers: processes, or threads, that decode.
      tiny: whether the network is tiny.
    """

    task: str
    input: str
    workers: int
    tiny: bool

    @property
    def config(self) -> str:
        """The config file."""
        return f"configs/paper/{self.task}.py"

    def overrides(self, data: Mapping[str, str], runs: str, steps: int) -> list[str]:
        """The overrides of `launch.py train`.

        Args:
          data: folders by kind.
          runs: folder of the runs that others start from.
          steps: steps to train; the log has five lines.
        """
        log_every = max(1, steps // 5)
        fields: dict[str, object] = {f"data.{kind}": data[kind] for kind in _DATA[self.task]}
        fields |= {field: os.path.join(runs, run) for field, run in _NEEDS.get(self.task, {}).items()}
        fields |= {"steps": steps, "log_every": log_every, "eval_every": -(-steps // log_every) * log_every}
        fields["eval_splits"] = "()"  # there is nothing to score
        fields |= {
            "resident": {"data.resident": "device"},
            "threads": {"data.resident": "off", "data.workers": 0, "data.threads": self.workers},
            "workers": {"data.resident": "off", "data.workers": self.workers},
        }[self.input]
        if self.tiny:
            fields |= _TINY[self.task]
        return [f"--config.{name}={value}" for name, value in fields.items()]


def inputs(task: str) -> tuple[str, ...]:
    """The ways in which a task's data can reach the device; features are always in memory."""
    return {"fusion": ("resident",), "end_to_end": ("threads", "workers")}.get(task, INPUTS)
