"""A dry run: reads everything, writes nothing, and says what was found and what does not match."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_prep.features import align
from data_prep.features.recording import Table
from data_prep.features.specs import StreamSpec


@dataclasses.dataclass
class Found:
    """What is known of one stream.

    Attributes:
      recordings: that have it.
      rates: rows per second of each.
      first, last: times, s.
      frames, present: frames of all records, and those in which it is present.
    """

    recordings: int = 0
    rates: list[float] = dataclasses.field(default_factory=list)
    first: float = np.inf
    last: float = -np.inf
    frames: int = 0
    present: int = 0

    def add(self, tables: Sequence[Table | None]) -> None:
        """Adds the tables of one recording."""
        self.recordings += bool(tables) and None not in tables
        for table in tables:
            time = table.rows.time if table else None
            if time is not None and len(time):
                step = align.step_of(time)
                self.rates += [1 / step] if step else []
                self.first, self.last = min(self.first, float(time[0])), max(self.last, float(time[-1]))

    def line(self, stream: StreamSpec, dim: int, of: int) -> list[str]:
        """A row of the table."""
        rates = sorted({f"{rate:.4g}" for rate in self.rates}, key=float)
        shown = rates[0] if len(rates) == 1 else f"{rates[0]} to {rates[-1]}" if rates else "?"
        times = f"{self.first:.2f} to {self.last:.2f}" if self.last >= self.first else "?"
        coverage = f"{self.present / self.frames:.1%}" if self.frames else "?"
        return [
            stream.name,
            stream.modality,
            str(dim),
            shown,
            times,
            coverage,
            f"{self.recordings}/{of}",
            stream.source,
        ]


class Survey:
    """Gathers what a dry run finds, recording by recording."""

    def __init__(self, streams: Sequence[StreamSpec], dims: Mapping[str, int]):
        self._streams, self._dims = streams, dims
        self._found = {stream.name: Found() for stream in streams}
        self._label_times: list[np.ndarray] = []
        self._splits: dict[str, collections.Counter[str]] = {}
        self._flags: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.count = 0

    def begin(self, split: str, group: str) -> None:
        """Counts a recording."""
        self.count += 1
        self._splits.setdefault(split, collections.Counter())[group] += 1

    def tables(self, tables: Mapping[str, Sequence[Table | None]]) -> None:
        """Adds a recording's tables."""
        for name, row in tables.items():
            self._found[name].add(row)

    def record(self, record: Mapping[str, object]) -> None:
        """Adds a recording's record."""
        labelled = np.asarray(record["target_mask"], bool)
        time = np.asarray(record["time"], np.float64)
        if labelled.any():
            self._label_times.append(time[labelled])
        for name, found in self._found.items():
            mask = np.asarray(record[f"{name}_mask"], bool)
            found.frames, found.present = found.frames + len(mask), found.present + int(mask.sum())
        for flag in record.get("flags", ()):  # type: ignore[attr-defined]
            self._flags.setdefault(str(flag), []).append(str(record["recording"]))

    def text(self, notes: Iterable[str]) -> str:
        """What was found, for the screen."""
        rows = [["stream", "modality", "dim", "rate (Hz)", "times (s)", "coverage", "recordings", "source"]]
        rows += [self._found[s.name].line(s, self._dims[s.name], self.count) for s in self._streams]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self._label_times:
            steps = [align.step_of(time) for time in self._label_times]
            rate = 1 / float(np.median(steps)) if np.median(steps) else 0.0
            first, last = min(t[0] for t in self._label_times), max(t[-1] for t in self._label_times)
            frames = sum(map(len, self._label_times))
            lines.append(
                f"labels: {len(self._label_times)} of {self.count} recordings, {frames} frames "
                f"at {rate:.4g} Hz, {first:.2f} to {last:.2f} s"
            )
        else:
            lines.append("labels: no traces")
        for split, groups in self._splits.items():
            named = ", ".join(f"{group} {n}" for group, n in sorted(groups.items()) if group)
            lines.append(f"{split}: {sum(groups.values())} recordings" + (f" ({named})" if named else ""))
        lines += [f"note: {note}" for note in notes]
        lines += [f"note: {flag}: {len(names)} recordings, such as {names[0]}" for flag, names in self._flags.items()]
        lines += [f"problem: {problem}" for problem in self.problems] or ["no problem was found"]
        return "\n".join(lines)
