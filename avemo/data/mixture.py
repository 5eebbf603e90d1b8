"""Several prepared data sets in the place of one: `DIR:WEIGHT,DIR:WEIGHT`, wherever a config names `data.faces`,
`data.triplets`, `data.unlabelled` or (of an audio encoder) `data.clips`.

Training draws from each in proportion to its weight (1 where none is given); evaluation reads each that has the split,
one after another, whatever the weights are.
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
class Part:
    """A data set's folder, local or gs://, and its weight, above 0."""

    folder: str
    weight: float = 1.0


def parse(text: str) -> list[Part]:
    """The parts of `DIR[:WEIGHT][,DIR[:WEIGHT]…]`; a folder that exists under the whole name is one part.

    Raises:
      UserError: a weight that is not above 0, an empty name, or a folder that is named twice.
    """
    text = str(text)
    if not any(mark in text for mark in ",:") or ("://" not in text and epath.Path(text).exists()):
        return [Part(text)]
    parts = []
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
        parts.append(Part(folder, weight))
    folders = [part.folder for part in parts]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if twice:
        raise UserError(f"{text!r} names {twice[0]} twice: give it once, with the sum of the weights.")
    return parts


def splits(text: str) -> list[str]:
    """Names of the non-empty splits of any of the parts, in the order in which they are met."""
    return list(dict.fromkeys(name for part in parse(text) for name in shards.splits(part.folder)))


def fingerprint(text: str) -> str:
    """`shards.fingerprint` of one data set; of several, SHA-256 (16 hex digits) over theirs and their weights."""
    parts = parse(text)
    prints = [shards.fingerprint(part.folder) for part in parts]
    if len(parts) == 1:
        return prints[0]
    lines = (f"{found}:{part.weight}" for found, part in zip(prints, parts, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Joined:
    """A split of several data sets, one after another, as one random-access source like `shards.Shards`."""

    def __init__(self, members: Sequence[shards.Shards]):
        self._members = list(members)
        self._ends = list(itertools.accumulate(map(len, members)))
        self.features, self.class_names = members[0].features, members[0].class_names

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"Joined({self._members!r})"

    def _at(self, index: int) -> tuple[shards.Shards, int]:
        index = int(index) % len(self)
        number = bisect.bisect_right(self._ends, index)
        return self._members[number], index - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        member, inside = self._at(index)
        return member[inside]

    def fields(self, index: int, names: Sequence[str]) -> tuple[Any, ...]:
        """Only the named fields of one record."""
        member, inside = self._at(index)
        return member.fields(inside, names)


def members(text: str, split: str, opener: Callable[[str, str], Any] = shards.Shards) -> list[tuple[Any, float]]:
    """Records and weight of each part that has the split.

    Args:
      text: one data set or several, see `parse`.
      split: which split.
      opener: `(folder, split) -> records`, with `class_names`.

    Raises:
      UserError: none has the split, or their classes differ.
    """
    parts = parse(text)
    having = [part for part in parts if len(parts) > 1 and split in shards.splits(part.folder)] or parts[:1]
    found = [(opener(part.folder, split), part.weight) for part in having]
    first = found[0][0]
    for other, _ in found[1:]:
        if other.class_names != first.class_names:
            raise UserError(
                f"{first} and {other} have not the same classes ({', '.join(first.class_names)}; "
                f"{', '.join(other.class_names)}): they cannot be mixed."
            )
    return found


def open_split(text: str, split: str) -> shards.Shards | Joined:
    """The records of a split of one data set, or of every one of several that has it; errors as of `members`."""
    found = [records for records, _ in members(text, split)]
    return found[0] if len(found) == 1 else Joined(found)


__all__ = ["Joined", "Part", "fingerprint", "members", "open_split", "parse", "splits"]
