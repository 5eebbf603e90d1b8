"""The data of a stage, and how a split of it is scored."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo.data import feed, mixture, pipeline
from avemo.metrics import shared_classes
from avemo.tasks.stage import Spec, Stage, Variables
from media.errors import UserError

Metrics = dict[str, float]
Predictions = dict[str, np.ndarray]
Predict = Callable[[Variables, Any], dict[str, np.ndarray]]


class Unscorable(UserError):
    """A split without labels of the kind that the run predicts. The other splits can still be scored."""


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How predictions are scored.

    Attributes:
      class_names: the run's classes, if the data may have others (`avemo.metrics.shared_classes`).
      per_person: clips of faces are scored relative to each person's average prediction.
    """

    class_names: tuple[str, ...] = ()
    per_person: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class StageData(abc.ABC):
    """The data of a stage.

    Attributes:
      stage: the stage that it feeds.
      folders: data folders by role; their fingerprints are recorded.
      class_names: the classes of its labels.
    """

    stage: Stage
    folders: Mapping[str, str]
    class_names: tuple[str, ...]

    @property
    def config(self) -> ConfigDict:
        """The run's config."""
        return self.stage.config

    @abc.abstractmethod
    def sources(self) -> dict[str, pipeline.Source]:
        """The training source of each stream."""

    def opened(self) -> Mapping[str, Any]:
        """Records of streams that are opened already; the others are opened by their source."""
        return {}

    def sizes(self) -> dict[str, int]:
        """The global batch size of each stream."""
        return {stream: source.batch_size for stream, source in self.sources().items()}

    def spec(self) -> Spec:
        """Shapes and dtypes of a global training batch."""
        return self.stage.spec(self.sizes())

    def batches(self) -> grain.IterDataset:
        """This process's training batches, read from the records and not augmented yet."""
        return pipeline.train_batches(self.sources(), self.config, self.opened())

    def open_feed(self, before: Mapping[str, str] | None = None) -> feed.Feed:
        """This process's training batches from wherever the data lies; `before` as for `feed.open_feed`."""
        return feed.open_feed(self.sources(), self.config, self.stage.gather, self.opened(), before)

    def records(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """The records of global training batch `number` (from 0): `{stream: [{"index", "name"}]}`."""
        return pipeline.batch_records(self.sources(), self.config, number, self.opened())

    def examples(self) -> int:
        """Examples in a global training batch."""
        return self.stage.examples(self.sizes())

    def standardise(self, variables: Variables) -> Variables:
        """Initial variables with what depends on the data (the moments of the training features) filled in."""
        return variables

    @abc.abstractmethod
    def score(
        self, predict: Predict, variables: Variables, split: str, scoring: Scoring
    ) -> tuple[Metrics, Predictions]:
        """Scores a split; `predict` is mapped over the devices and takes and returns host arrays.

        Raises:
          Unscorable: the split has no labels of the right kind.
        """

    def splits_of_any(self) -> list[str]:
        """Splits that at least one of the folders has."""
        return sorted(set().union(*(mixture.splits(folder) for folder in self.folders.values())))

    def splits_of_all(self) -> list[str]:
        """Splits that every folder has."""
        found = [set(mixture.splits(folder)) for folder in self.folders.values()]
        return sorted(set.intersection(*found)) if found else []

    def scored_splits(self) -> list[str]:
        """Splits on which a finished run is scored: those of the config, and all that every folder has but `train`."""
        return sorted({*self.config.eval_splits, *(set(self.splits_of_all()) - {"train"})})

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the folders, by role."""
        return {role: mixture.fingerprint(folder) for role, folder in self.folders.items()}

    def check_classes(self) -> None:  # noqa: B027 — not every stage predicts classes
        """Checks that the stage has one class for each class of the labels.

        Raises:
          UserError: the numbers differ.
        """

    def check(self) -> None:
        """Checks that the stage can be trained on the data.

        Raises:
          UserError: it cannot.
        """
        self.check_classes()

    def finish(self, workdir: epath.Path, variables: Variables, result: Mapping[str, Any]) -> None:  # noqa: B027
        """Writes the stage's own files into the folder of a finished run. Only the first process calls it."""


def check_classes(config: ConfigDict, folder: str, names: Sequence[str]) -> None:
    """Checks that the model has one class for each class of the data.

    Raises:
      UserError: the numbers differ.
    """
    if names and len(names) != config.model.num_classes:
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but {folder} has {len(names)} classes "
            f"({', '.join(names)}): set --config.model.num_classes={len(names)}."
        )


def first_class_names(folder: str) -> tuple[str, ...]:
    """The class names of a data folder."""
    return tuple(mixture.open_split(folder, mixture.splits(folder)[0]).class_names)


def match_classes(
    scoring: Scoring, data: Sequence[str], labels: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[N]` and probabilities `[N, S]` of the classes that run and data share."""
    return shared_classes.match(scoring.class_names, data, labels, probability)
