"""What every format gives: rows of numbers with their times, and where each row stands in its file."""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_prep import tables
from data_prep.features.specs import TableSpec
from data_prep.tables import TableError
from media.errors import UserError

KEYS = ("name", "recording", "file", "filename", "file_name", "video", "instance_name", "clip", "id", "input")
TIMES = ("timestamp", "time", "frametime", "start", "seconds")
FRAMES = ("frame", "frame_number", "frame_id")
CONFIDENCES = ("confidence", "facescore", "face_score")
SUCCESSES = ("success",)
# Columns that number or name faces, segments and rows: no features, whatever their values.
NUMBERINGS = ("face_id", "segment_id", "identity", "end", "approx_time", "class", "rater", "")


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of one recording: a file, or a part of it.

    Attributes:
      path: the file.
      ranges: of text, (first byte, last byte + 1, number of the first line) of each run of rows; None = all rows.
      member: of an archive, the name of the array; of a Parquet file, the recording's name in it.
    """

    path: str
    ranges: tuple[tuple[int, int, int], ...] | None = None
    member: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for an item's payload."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Part":
        """The inverse of `to_json`."""
        ranges = value["ranges"]
        return cls(value["path"], None if ranges is None else tuple(tuple(r) for r in ranges), value["member"])


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table are what, by their place.

    Attributes:
      names: of all columns.
      features: places of the features, in the table's order.
      key, time, end, frame, confidence, success: place, or None; with `end`, `time` is the begin of a row's window.
    """

    names: tuple[str, ...]
    features: tuple[int, ...]
    key: int | None = None
    time: int | None = None
    end: int | None = None
    frame: int | None = None
    confidence: int | None = None
    success: int | None = None

    @property
    def feature_names(self) -> list[str]:
        """Names of the features."""
        return [self.names[place] for place in self.features]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one recording.

    Attributes:
      time: float64 `[N]`, s, rising; None if the table does not say.
      values: float32 `[N, D]`.
      valid: bool `[N]`: False for rows with a cell that is empty or no finite number, and of low confidence.
      line: says where row i stands, as "line 7: ".
      notes: how the table was understood.
    """

    time: np.ndarray | None
    values: np.ndarray
    valid: np.ndarray
    line: Callable[[int], str]
    notes: tuple[str, ...] = ()


def columns_of(names: Sequence[str], spec: TableSpec) -> Columns:
    """Decides which columns are features, times, names and confidences.

    Raises:
      TableError: a column that `spec` names is missing.
    """
    lower = [name.strip().lower() for name in names]

    def named(asked: str, known: Sequence[str]) -> int | None:
        if asked:
            return _asked(asked, names)
        return next((lower.index(name) for name in known if name in lower), None)

    key, time = named(spec.key, KEYS), named(spec.time, TIMES)
    if time is None and not spec.time:
        time = next((i for i, name in enumerate(names) if tables.time_unit(name) in tables.SECONDS), None)
    end = named("", ("end",)) if time is not None and lower[time] == "start" else None
    frame = named("", FRAMES)
    confidence, success = named("", CONFIDENCES), named("", SUCCESSES)
    taken = {key, time, end, frame, confidence, success}
    others = [i for i, name in enumerate(lower) if i not in taken and name not in NUMBERINGS]
    others = [i for i in others if not lower[i].startswith("unnamed:") and lower[i] not in TIMES]
    chosen = tuple(_chosen(names, others, spec.cols))
    return Columns(tuple(names), chosen, key, time, end, frame, confidence, success)


def _asked(asked: str, names: Sequence[str]) -> int:
    if asked in names:
        return list(names).index(asked)
    if asked.isdigit() and 1 <= int(asked) <= len(names):
        return int(asked) - 1
    raise TableError(f"it has no column {asked!r} (it has {listed(names)}): name one of them")


def _chosen(names: Sequence[str], others: Sequence[int], patterns: Sequence[str]) -> list[int]:
    """The places of the columns that the patterns choose, among the others if none asks for one."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    places = list(others)
    if wanted:
        places = [i for i, name in enumerate(names) if any(fnmatch.fnmatchcase(name, one) for one in wanted)]
        for pattern in wanted:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise TableError(f"no column matches cols={pattern} (it has {listed(names)}): change the pattern")
    barred = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return [i for i in places if not any(fnmatch.fnmatchcase(names[i], one) for one in barred)]


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(map(str, names[:8])) + (f", … {len(names)} in all" if len(names) > 8 else "")


def at(path: str | pathlib.Path, error: TableError) -> UserError:
    """The error for a file."""
    return UserError(f"{path}: {error}.")
