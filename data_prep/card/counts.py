"""Counts for the data set card, gathered record by record and merged over tasks."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

CELLS = 20  # per side of the valence/arousal histogram


class RecordCounts(NamedTuple):
    """What one record adds to the counts.

    Attributes:
      counts: by name.
      label: None if an earlier record of the same recording counted it.
      points: valence and arousal `[N, 2]`.
      flags: (flag, recording) pairs that somebody should check.
      constant: values by the names of what does not change in the record; None if nothing is compared.
    """

    counts: dict[str, int]
    label: int | None
    points: np.ndarray | None
    flags: tuple[tuple[str, str], ...] = ()
    constant: Mapping[str, float] | None = None


class SplitCounts:
    """Counts per split: records, labels, seconds, frames, missed faces, missing sound, valence × arousal."""

    def __init__(self, kind: str):
        self.kind = kind
        self.splits: dict[str, dict[str, Any]] = {}

    def _split(self, name: str) -> dict[str, Any]:
        if name not in self.splits:
            plane = np.zeros((CELLS, CELLS), int)
            self.splits[name] = {
                "counts": collections.Counter(),
                "labels": collections.Counter(),
                "plane": plane,
                "flags": {},
                "constant": None,
            }
        return self.splits[name]

    def measure(self, record: Mapping[str, Any]) -> RecordCounts:
        """Returns what one record, not yet encoded, adds to the counts."""
        if self.kind == "faces":
            points = np.array([[record["valence"], record["arousal"]]])
            return RecordCounts({"records": 1}, int(record["label"]), points)
        if self.kind == "triplets":
            return RecordCounts({"records": 1}, int(record["type"]), None)
        if self.kind == "features":
            return _features(record)
        face, sound, target = (np.asarray(record[n], bool) for n in ("face_mask", "audio_mask", "target_mask"))
        counts = {
            "records": 1,
            "recordings": int(record["segment"] == 0),
            "frames": len(face),
            "frames_without_face": int((~face).sum()),
            "frames_without_sound": int((~sound).sum()),
            "frames_with_target": int(target.sum()),
            "milliseconds": round(1000 * len(face) / float(record["fps"])),
        }
        label = int(record["label"]) if record["segment"] == 0 else None
        flags = tuple((flag, record["recording"]) for flag in record.get("flags", ()))
        return RecordCounts(counts, label, np.asarray(record["targets"])[target], flags)

    def count(self, split: str, measured: RecordCounts) -> None:
        """Adds one measured record to a split."""
        mine = self._split(split)
        mine["counts"].update(measured.counts)
        if measured.label is not None:
            mine["labels"][str(measured.label)] += 1
        for flag, recording in measured.flags:
            mine["flags"].setdefault(flag, []).append(recording)
        if measured.points is not None:
            _plot(mine["plane"], measured.points)
        mine["constant"] = _in_both(mine["constant"], measured.constant)

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Measures and counts one record, not yet encoded."""
        self.count(split, self.measure(record))

    def merge(self, other: SplitCounts) -> None:
        """Adds the counts of another task."""
        for name, theirs in other.splits.items():
            mine = self._split(name)
            mine["counts"].update(theirs["counts"])
            mine["labels"].update(theirs["labels"])
            for flag, recordings in theirs["flags"].items():
                mine["flags"].setdefault(flag, []).extend(recordings)
            mine["plane"] += np.asarray(theirs["plane"], int)
            mine["constant"] = _in_both(mine["constant"], theirs["constant"])

    def to_json(self) -> dict[str, Any]:
        """Returns {split: {counts, labels, plane, flags, constant}} as plain values; plane is None without valence."""
        return {
            name: {
                "counts": dict(sorted(s["counts"].items())),
                "labels": dict(sorted(s["labels"].items(), key=lambda pair: int(pair[0]))),
                "plane": s["plane"].tolist() if s["plane"].any() else None,
                "flags": {flag: list(names) for flag, names in sorted(s["flags"].items())},
                "constant": s["constant"],
            }
            for name, s in sorted(self.splits.items())
        }

    @classmethod
    def from_json(cls, kind: str, data: Mapping[str, Any]) -> SplitCounts:
        """The inverse of `to_json`."""
        out = cls(kind)
        for name, values in data.items():
            split = out._split(name)
            split["counts"].update(values["counts"])
            split["labels"].update(values["labels"])
            split["flags"].update({flag: list(names) for flag, names in values["flags"].items()})
            split["constant"] = values.get("constant")
            if values["plane"] is not None:
                split["plane"] += np.asarray(values["plane"], int)
        return out


def _features(record: Mapping[str, Any]) -> RecordCounts:
    """What a record of named streams adds: frames, and how many of them each stream lacks."""
    target = np.asarray(record["target_mask"], bool)
    counts = {
        "recordings": 1,
        "frames": len(target),
        "frames_with_target": int(target.sum()),
        "milliseconds": round(1000 * len(target) / float(record["fps"])),
    }
    for name, mask in record.items():
        if name.endswith("_mask") and name != "target_mask":
            counts[f"frames_without_{name.removesuffix('_mask')}"] = int((~np.asarray(mask, bool)).sum())
    flags = tuple((flag, record["recording"]) for flag in record.get("flags", ()))
    points = np.asarray(record["targets"])[target]
    return RecordCounts(counts, int(record["label"]), points, flags, record.get("constant", {}))


def _in_both(one: Mapping[str, float] | None, other: Mapping[str, float] | None) -> dict[str, float] | None:
    """The entries that two sets of values share; None says nothing."""
    if one is None or other is None:
        return dict(one or other or {}) if (one is not None or other is not None) else None
    return {name: value for name, value in one.items() if other.get(name) == value}


def _plot(plane: np.ndarray, points: np.ndarray) -> None:
    """Counts points `[N, 2]` (valence, arousal in [-1, 1]) into cells `[arousal, valence]`; NaN is ignored."""
    points = points[np.isfinite(points).all(axis=1)]
    if len(points):
        cell = np.clip(((points + 1) / 2 * CELLS).astype(int), 0, CELLS - 1)
        np.add.at(plane, (cell[:, 1], cell[:, 0]), 1)


def share(count: int, whole: int) -> float | None:
    """Returns count / whole rounded for the card; None if `whole` is 0."""
    return None if not whole else round(count / whole, 4)
