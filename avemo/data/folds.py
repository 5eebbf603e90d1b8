"""Folds of a data set for cross-validation: which recordings are train, dev and test of one of them.

A run of one fold is tested on that fold and learns from the others. Its dev part is cut out of the recordings it learns
from, so that nothing is chosen on what is reported. By default folds are of subjects: all recordings of a subject go to
one part. Folds of recordings part them, which flatters the scores; folds of groups keep groups whole.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from avemo.data.features import Recording
from media.errors import UserError, unknown

BY = ("recording", "subject", "group")
SPLITS = ("train", "dev", "test")
NONE = "auto"  # the data set's own splits


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold of n.

    Attributes:
      number, count: units whose place in sorted order is `number` mod `count` are tested.
      by: what a unit is: "recording", "subject" (a recording without one is its own) or "group".
      part, parts: of the subjects that are not tested, those whose place in sorted order is `part` mod `parts` are dev;
        with `parts` 0 none is.
    """

    number: int
    count: int
    by: str = "subject"
    part: int = 0
    parts: int = 0

    def split(self, recordings: Sequence[Recording]) -> dict[str, list[int]]:
        """The numbers of the recordings of each split.

        Raises:
          UserError: there are fewer units than folds, or too few subjects to learn from.
        """
        units = [_unit(recording, self.by) for recording in recordings]
        names = sorted(set(units))
        if len(names) < self.count:
            raise UserError(
                f"data.fold asks for {self.count} folds by {self.by}, but there are {len(names)}: use fewer folds."
            )
        tested = set(names[self.number :: self.count])
        learned = [number for number, unit in enumerate(units) if unit not in tested]
        subjects = sorted({_subject(recordings[number]) for number in learned})
        held = set(subjects[self.part :: self.parts]) if self.parts else set()
        out: dict[str, list[int]] = {
            "train": [number for number in learned if _subject(recordings[number]) not in held],
            "dev": [number for number in learned if _subject(recordings[number]) in held],
            "test": [number for number, unit in enumerate(units) if unit in tested],
        }
        for name, numbers in out.items():
            if not numbers and (name != "dev" or self.parts):
                raise UserError(f"fold {self.number}/{self.count} has no recording for {name}: use fewer parts.")
        return out


def of_config(config: ConfigDict) -> Fold | None:
    """The fold that `data.fold`, `data.fold_by` and `data.dev_part` name; None: the data set's own splits.

    Raises:
      UserError: one of them is malformed.
    """
    fold = config.data.get("fold", NONE)
    if fold == NONE:
        return None
    by = config.data.get("fold_by", NONE)
    by = "subject" if by == NONE else by
    if by not in BY:
        raise unknown("data.fold_by", by, BY)
    number, count = _fraction("data.fold", fold)
    if count < 2:
        raise UserError(f"data.fold={fold} must be one of at least two folds, such as 0/7.")
    part = config.data.get("dev_part", NONE)
    return Fold(number, count, by, *((0, 0) if part == NONE else _fraction("data.dev_part", part)))


def order(recordings: Sequence[Recording]) -> list[Recording]:
    """The recordings of all splits of a data set, sorted by name.

    Raises:
      UserError: two have the same name.
    """
    names = np.array([recording.name for recording in recordings])
    kinds, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"two recordings are called {str(kinds[counts > 1][0])!r}: folds need different names.")
    return sorted(recordings, key=lambda recording: recording.name)


def _fraction(field: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"{field}={text} is not i/n with 0 ≤ i < n, such as 0/7.")
    return int(found[1]), int(found[2])


def _subject(recording: Recording) -> str:
    return recording.subject or recording.name


def _unit(recording: Recording, by: str) -> str:
    if by == "group":
        if not recording.group:
            raise UserError(f"data.fold_by=group, but recording {recording.name!r} has no group: fold by subject.")
        return recording.group
    return recording.name if by == "recording" else _subject(recording)
