"""Features that others have extracted: tables of any kind to one record per recording, as `launch.py extract` writes.

See `data_prep.features.specs` for how streams are named, and docs/features.md.
"""

import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import annotations
from data_prep.corpora.base import Corpus, Item
from data_prep.features import align, labels, reading, sources, specs
from data_prep.features.rows import Part, at
from data_prep.tables import TableError
from media.errors import UserError, unknown
from media.records import CLASSES, stream_features

SPLITS = ("train", "dev", "test")
# How the names of recordings say their split, as in the challenges.
_PREFIXES = {"train": "train", **dict.fromkeys(("dev", "devel", "val", "valid", "validation"), "dev"), "test": "test"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of features.

    audio, visual, text, physio: tables of each modality, see docs/features.md. labels: table or folder of traces of
    valence and arousal, with {dimension} in its place if each has a folder of its own. align: interpolate, mean or
    nearest. window: seconds of the mean, 0 = the labels' step. rate: rows per second of the records, 0 = the labels'
    times. delay: seconds by which the labels are moved earlier for good. gold_standard: mean, ewe or ccc, of raters.
    scale: range of the labels. split: train, dev or test for all; by default the names say it (train_1, Devel_DE_01).
    group: regular expression whose first group, in a recording's name, is its group, such as a culture. subject: the
    same for the speaker. exclude: patterns of recordings to leave out, separated by commas. max_missing: share of the
    recordings that a stream may lack. tolerance: seconds by which labels may outlast features.
    """

    audio: str = ""
    visual: str = ""
    text: str = ""
    physio: str = ""
    labels: str = ""
    align: str = "interpolate"
    window: float = 0.0
    rate: float = 0.0
    delay: float = 0.0
    gold_standard: str = "ewe"
    scale: str = "-1,1"
    split: str = ""
    group: str = ""
    subject: str = ""
    exclude: str = ""
    max_missing: float = 0.2
    tolerance: float = 1.0

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        if self.align not in specs.ALIGN:
            raise unknown("value of --align", self.align, specs.ALIGN)
        annotations.GOLD_STANDARDS[self.gold_standard]
        self.range()
        if self.split and self.split not in SPLITS:
            raise unknown("value of --split", self.split, SPLITS)
        if not specs.streams(dataclasses.asdict(self)):
            raise UserError(f"no features are named: give one of {', '.join(f'--{m}=DIR' for m in specs.MODALITIES)}.")
        if not self.labels:
            raise UserError("--labels is missing: name the table or folder of labels.")

    def range(self) -> tuple[float, float]:
        """The lowest and highest value of the labels."""
        try:
            low, high = (float(number) for number in self.scale.split(","))
        except ValueError as error:
            raise UserError(f"--scale={self.scale}: expected LOW,HIGH such as 1,9.") from error
        if not low < high:
            raise UserError(f"--scale={self.scale}: the first number must be the smaller one.")
        return low, high


class Features(Corpus):
    """Features of others."""

    name = "features"
    kind = "features"
    title = "Features of any kind, with traces or classes"
    licence = "that of your files"
    access = "Your own tables."
    layout = """
        one folder or file of tables per stream, and one of labels; see docs/features.md
    """
    chunk = 1
    shuffle = False
    Options = Options

    def __init__(self, source: pathlib.Path, options: Any, output: pathlib.Path | None = None):
        super().__init__(source, options, output)
        self._streams = specs.streams(dataclasses.asdict(options))
        self._labels = specs.table(options.labels or "labels", "labels")[0]
        self._dims: dict[str, int] = {}
        self._raters = 0

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records: every stream with its mask. Known after `items`."""
        if self._streams and not self._dims:
            self.items()
        return stream_features(self._dims, CLASSES, self._raters)

    def card(self) -> dict[str, Any]:
        """The streams, for the card."""
        return {
            "streams": [
                {"name": s.name, "modality": s.modality, "dim": self._dims[s.name], "source": s.source}
                for s in self._streams
            ]
        }

    def items(self) -> Sequence[Item]:
        """Lists the recordings that have labels or features."""
        self.notes.clear()
        found = sources.find(self.source, self._streams, self._labels, self.options.max_missing, self.notes)
        barred = [pattern for pattern in self.options.exclude.split(",") if pattern]
        names = [name for name in found.names if not any(fnmatch.fnmatchcase(name, one) for one in barred)]
        self._dims = {
            s.name: sum(len(sources.columns(found.streams[s.name], i, t)) for i, t in enumerate(s.tables))
            for s in self._streams
        }
        first = next((found.labels[name] for name in names if found.labels.get(name)), None)
        self._raters = labels.rater_count(first, self._labels) if first else 0
        items = []
        for name in names:
            payload = {
                "streams": {
                    s.name: [part.to_json() if part else None for part in found.streams[s.name].get(name, ())]
                    for s in self._streams
                },
                "labels": {d: part.to_json() for d, part in found.labels.get(name, {}).items()},
                "group": self._pick("group", name),
            }
            items.append(Item(name, self._split(name), self._pick("subject", name), payload))
        return sorted(items, key=lambda item: (SPLITS.index(item.split), item.key))

    def sources(self, item: Item) -> Iterator[str]:
        """Yields the files of an item's streams and labels."""
        parts = [part for parts in item.payload["streams"].values() for part in parts]
        yield from sorted({part["path"] for part in [*parts, *item.payload["labels"].values()] if part})

    def _pick(self, option: str, name: str) -> str:
        pattern = getattr(self.options, option)
        if not pattern:
            return ""
        found = re.search(pattern, name)
        if not found:
            raise UserError(f"--{option}={pattern} does not match recording {name!r}: change the pattern.")
        return found[1] if found.re.groups else found[0]

    def _split(self, name: str) -> str:
        if self.options.split:
            return self.options.split
        word = re.match("[a-z]*", name.rpartition("/")[2].lower())
        split = _PREFIXES.get(word[0] if word else "")
        if not split:
            raise UserError(f"the name of recording {name!r} does not say its split: give --split=train, dev or test.")
        return split

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the record of one recording.

        Raises:
          UserError: a table cannot be used; file, line and remedy are named.
        """
        options = self.options
        parts = {d: Part.from_json(part) for d, part in item.payload["labels"].items()}
        traces = labels.read(parts, self._labels, options.delay, options.gold_standard, *options.range())
        time = labels.grid(traces.time, options.rate)
        targets, raters = labels.resampled(traces, time)
        known = np.isfinite(targets).all(axis=1)
        step = align.step_of(time)
        record: dict[str, Any] = {
            "recording": item.key,
            "subject": item.subject,
            "group": item.payload["group"],
            "fps": np.float32(1 / step if step else options.rate or 1.0),
            "time": time.astype(np.float32),
            "targets": np.where(known[:, None], targets, 0).astype(np.float32),
            "target_mask": known,
            "raters": raters.astype(np.float32),
            "label": -1,
        }
        for stream in self._streams:
            tables = item.payload["streams"][stream.name]
            record |= self._stream(stream, tables, time, traces)
        yield record

    def _stream(
        self, stream: specs.StreamSpec, tables: Sequence[Mapping[str, Any] | None], time: np.ndarray, traces: Any
    ) -> dict[str, np.ndarray]:
        """A stream's features float32 `[T, D]` and mask bool `[T]`; all masked if one of its tables is missing."""
        if not tables or None in tables:
            shape = len(time), self._dims[stream.name]
            return {stream.name: np.zeros(shape, np.float32), f"{stream.name}_mask": np.zeros(len(time), bool)}
        values, masks = [], []
        for spec, stored in zip(stream.tables, tables, strict=True):
            part = Part.from_json(dict(stored or {}))
            value, mask = self._table(stream.name, spec, part, time, traces)
            values.append(value)
            masks.append(mask)
        mask = np.logical_and.reduce(masks)
        joined = np.concatenate(values, axis=1)
        return {stream.name: np.where(mask[:, None], joined, np.float32(0)), f"{stream.name}_mask": mask}

    def _table(
        self, name: str, spec: specs.TableSpec, part: Part, time: np.ndarray, traces: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            rows = reading.read(part, spec)
            if rows.time is None:
                raise TableError(f"stream {name} has no times: add a column of times in seconds, or rate=HZ")
            late = time[-1] - rows.time[-1] - align.step_of(rows.time)
            if late > self.options.tolerance:
                raise TableError(
                    f"{rows.line(len(rows.time) - 1)}stream {name} ends at {rows.time[-1]:g} s, {late:.2f} s before "
                    f"the labels of {traces.last}check its rate, or give --tolerance={np.ceil(late):g}"
                )
        except TableError as error:
            raise at(part.path, error) from error
        except OSError as error:
            raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error
        how, window = spec.align or self.options.align, spec.window or self.options.window
        return align.to_times(rows.time, rows.values, rows.valid, time, how, window, spec.max_gap)
