"""Mixtures of prepared data sets, written `DIR:WEIGHT,DIR:WEIGHT`. A config may name one in `data.faces`,
`data.triplets`, `data.unlabelled` or (for an audio encoder) `data.clips`.

Training draws from each member in proportion to its weight, which is 1 by default. Evaluation ignores the weights and
reads every member that has the split, one after another.
"""

import bisect
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from avemo.data import shards
from media.errors import UserError


@dataclasses.dataclass(frozen=True)
class Member:
    """A data set's folder, local or gs://, and its weight, which is above 0."""

    folder: str
    weight: float = 1.0


def parse(text: str) -> list[Member]:
    """Reads `DIR[:WEIGHT][,DIR[:WEIGHT]…]`. If a folder with the whole name exists, it is the only member.

    Raises:
      UserError: a weight is not above 0, a name is empty, or a folder is named twice.
    """
    text = str(text)
    if not any(mark in text for mark in ",:") or ("://" not in text and epath.Path(text).exists()):
        return [Member(text)]
    members = []
    for entry in text.split(","):
        entry = entry.strip()
        folder, _, number = entry.rpartition(":")
        try:
            weight = float(number)
        except ValueError:  # no weight: a plain folder, or the colon of gs://
            folder, weight = entry, 1.0
        if not folder:
            raise UserError(f"{text!r} names no folder before {entry!r}: write DIR:WEIGHT,DIR:WEIGHT.")
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"the weight of {folder} in {text!r} is {number}: it must be above 0.")
        members.append(Member(folder, weight))
    folders = [member.folder for member in members]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if twice:
        raise UserError(f"{text!r} names {twice[0]} twice: name it once, with the sum of the weights.")
    return members


def splits(text: str) -> list[str]:
    """Names of the non-empty splits of all members, in order of appearance."""
    return list(dict.fromkeys(name for member in parse(text) for name in shards.splits(member.folder)))


def fingerprint(text: str) -> str:
    """`shards.fingerprint` of a single data set; for several, SHA-256 (16 hex digits) over prints and weights."""
    members = parse(text)
    prints = [shards.fingerprint(member.folder) for member in members]
    if len(members) == 1:
        return prints[0]
    lines = (f"{found}:{member.weight}" for found, member in zip(prints, members, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Joined:
    """A split of several data sets in sequence, as one random-access source like `shards.Shards`."""

    def __init__(self, sources: Sequence[shards.Shards]) -> None:
        self._sources = list(sources)
        self._ends = list(itertools.accumulate(map(len, sources)))
        self.class_names = sources[0].class_names

    @property
    def features(self) -> Any:
        """The schema, that of the first data set."""
        return self._sources[0].features

    @property
    def folders(self) -> list[epath.Path]:
        """The folder of each data set."""
        return [source.folder for source in self._sources]

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"Joined({self._sources!r})"

    def locate(self, index: int) -> tuple[shards.Shards, int]:
        """The data set that a record is in, and its position there."""
        index = int(index) % len(self)
        number = bisect.bisect_right(self._ends, index)
        return self._sources[number], index - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, inside = self.locate(index)
        return source[inside]

    def fields(self, index: int, names: Sequence[str]) -> tuple[Any, ...]:
        """Reads only the named fields of one record."""
        source, inside = self.locate(index)
        return source.fields(inside, names)


def open_members(text: str, split: str, opener: Callable[[str, str], Any] = shards.Shards) -> list[tuple[Any, float]]:
    """Opens the split in each member that has it; returns records and weights.

    Args:
      text: one data set or several, see `parse`.
      split: name of the split.
      opener: `(folder, split) -> records` with `class_names`.

    Raises:
      UserError: no member has the split, or the members' classes differ.
    """
    members = parse(text)
    having = [member for member in members if len(members) > 1 and split in shards.splits(member.folder)]
    found = [(opener(member.folder, split), member.weight) for member in having or members[:1]]
    first = found[0][0]
    for other, _ in found[1:]:
        if other.class_names != first.class_names:
            raise UserError(
                f"{first} and {other} do not have the same classes ({', '.join(first.class_names)}; "
                f"{', '.join(other.class_names)}): they cannot be mixed."
            )
    return found


def open_split(text: str, split: str) -> shards.Shards | Joined:
    """Opens a split of one data set, or of every member that has it. Raises as `open_members` does."""
    found = [records for records, _ in open_members(text, split)]
    return found[0] if len(found) == 1 else Joined(found)
