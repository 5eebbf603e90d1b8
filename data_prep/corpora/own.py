"""Your own recordings: a folder of videos or sound files, with labels if you have any.

`labels.csv` in that folder has a header and one of two forms (further columns are ignored):

    file,label[,subject][,split]                        one line per recording
    file,time,valence,arousal[,rater][,subject][,split] one line per moment; several raters become a gold standard

`file` is the path below the folder and `time` is in seconds, unless the header or `--time_unit` says otherwise. Valence
and arousal lie in [-1, 1] unless `--scale=LOW,HIGH` names another range. Without `split`, about a fifth of the subjects
is held out as `dev` (or of the recordings, if no subject is given). Without `labels.csv`, everything is `test`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import annotations, coverage
from data_prep.clips import Annotation, ClipOptions, clip_records, no_annotation
from data_prep.corpora import own_times
from data_prep.corpora.base import Corpus, Item
from data_prep.corpora.own_labels import UNITS, Table, Trace, read_table
from data_prep.names import match, nearest
from media import video
from media.errors import BadItem, UserError, unknown
from media.files import shown
from media.records import clips_features

LABELS = "labels.csv"


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of your own recordings, besides those of clips and faces.

    labels: the table, by default `labels.csv` in the source. gold_standard: mean, ewe or ccc. scale: lowest and highest
    value of valence and arousal in the table, which are mapped to [-1, 1]. time_unit: of the table's times, s, ms, min
    or frames (counted from 0); auto takes it from the header, and otherwise seconds if they fit the recordings.
    """

    labels: str = ""
    gold_standard: str = "ewe"
    scale: str = "-1,1"
    time_unit: str = "auto"

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        annotations.GOLD_STANDARDS[self.gold_standard]
        self.range()
        if self.time_unit not in UNITS:
            raise unknown("unit of --time_unit", self.time_unit, UNITS)
        if self.labels and not pathlib.Path(self.labels).is_file():
            raise UserError(f"--labels={self.labels} is not a file.")

    def range(self) -> tuple[float, float]:
        """The lowest and highest value of the scale."""
        try:
            low, high = (float(number) for number in self.scale.split(","))
        except ValueError as error:
            raise UserError(f"--scale={self.scale}: expected LOW,HIGH such as 1,9.") from error
        if not low < high:
            raise UserError(f"--scale={self.scale}: the first number must be the smaller one.")
        return low, high


class Own(Corpus):
    """Your own recordings."""

    name = "own"
    kind = "clips"
    title = "Your own videos or sound files, with labels.csv if you have labels"
    licence = "that of your files"
    access = "Your own files."
    layout = """
        any tree of videos or sound files, and labels.csv with file,label[,subject][,split] or
        file,time,valence,arousal[,rater][,subject][,split]
    """
    chunk = 1
    shuffle = False
    Options = Options
    _unit, _first_frame = "s", 0

    def _table(self) -> Table | None:
        path = pathlib.Path(self.options.labels) if self.options.labels else self.source / LABELS
        return read_table(path, *self.options.range()) if path.is_file() else None

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records, with the classes and raters of labels.csv."""
        table, form = self._table(), self.options.image_format
        if table is None:
            return clips_features(image_format=form)
        return clips_features(table.classes, len(table.raters), form)

    def items(self) -> Sequence[Item]:
        """Lists every recording below the folder, and those named in labels.csv but missing, which will fail."""
        table = self._table()
        found = self.files_of_any_name(video.is_recording, besides=LABELS)
        paths = {shown(path.relative_to(self.source)): str(path) for path in found}
        named, notes = match(table.files, paths) if table else ({}, [])
        self.notes += [f"{LABELS}: {note}" for note in [*(table.notes if table else ()), *notes]]
        missing = sorted(table.files - set(named)) if table else []
        near = nearest(missing, paths)
        name_of = {**{name: name for name in missing}, **{file: name for name, file in named.items()}}
        if table:
            self._set_unit(table, {name: paths[file] for name, file in named.items()})
        items = []
        for key in sorted({*paths, *missing}):
            payload: dict[str, Any] = {"path": paths.get(key, "")}
            split, subject = "test", ""  # nothing is known about it, so it can only be predicted
            if table and key in name_of:
                name = name_of[key]
                subject = table.subjects.get(name, "")
                split = table.splits.get(name) or _held_out(subject or name)
                payload |= {"name": name, "near": near.get(key, ""), "annotation": _digest(table, name)}
            items.append(Item(key, split, subject, payload))
        labelled = [item for item in items if item.split != "test"]
        if table and len(labelled) > 1 and not table.splits and len({item.split for item in labelled}) == 1:
            # So few that chance held out none or all: the last recording's subject becomes dev.
            last = labelled[-1]
            out = {item.key for item in labelled if item is last or (last.subject and item.subject == last.subject)}
            items = [
                item if item.split == "test" else dataclasses.replace(item, split="dev" if item.key in out else "train")
                for item in items
            ]
        return items

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one recording's segments."""
        if not item.payload["path"]:
            near = item.payload.get("near")
            hint = f"; the nearest name is {near!r}" if near else ""
            raise BadItem(f"{LABELS} names it, but it is not in the folder{hint}")
        path, table = pathlib.Path(item.payload["path"]), self._table()
        label, name = -1, item.payload.get("name", item.key)
        annotate: Callable[[np.ndarray], Annotation] = no_annotation
        spans: list[coverage.Span] = []
        if table:
            label = table.classes.index(table.labels[name]) if name in table.labels else -1
            by_rater = {rater: self._in_seconds(lines, path) for rater, lines in table.traces.get(name, {}).items()}
            annotate = traces = _RatedTraces(by_rater, table.raters, self.options.gold_standard)
            spans = traces.spans
        picture = path if video.has_picture(path) else None  # the tracks decide, not the name
        yield from clip_records(
            item.key,
            options=self.options,
            subject=item.subject,
            picture=picture,
            sound=None if picture else path,
            annotate=annotate,
            spans=spans,
            label=label,
        )

    def _set_unit(self, table: Table, paths: Mapping[str, str]) -> None:
        """Decides in which unit the table's times are, for every recording."""
        unit = self.options.time_unit if self.options.time_unit != "auto" else table.unit
        if unit == "auto":
            unit, note = own_times.find(table.traces, paths)
            self.notes += [f"{LABELS}: {note}"] if note else []
        self._unit = unit
        if unit == "frames":
            self._first_frame = own_times.first_frame(table.traces)
            self.notes.append(f"{LABELS}: frames are counted from {self._first_frame}")

    def _in_seconds(self, lines: Trace, path: pathlib.Path) -> np.ndarray:
        """A rater's lines float64 `[N, 3]` (seconds, valence, arousal)."""
        rows = np.array(lines, np.float64).reshape(-1, 3)
        rows[:, 0] = own_times.in_seconds(rows[:, 0], self._unit, path, self._first_frame)
        return rows


class _RatedTraces:
    """The traces of one recording, resampled to any times; all NaN if nobody rated it."""

    def __init__(self, by_rater: Mapping[str, np.ndarray], raters: Sequence[str], method: str):
        """`by_rater` gives each rater's lines float64 `[N, 3]`: seconds, valence, arousal."""
        self._count = max(1, len(raters))
        rated = [by_rater.get(rater, np.zeros((0, 3))) for rater in raters]
        self._time = np.unique(np.concatenate([table[:, 0] for table in rated])) if rated else np.zeros(0)
        # Of the raters and not of their union, whose times may lie close together.
        self._step = max((annotations.step_of(table[:, 0]) for table in rated), default=0.0)
        values = [annotations.resample(table[:, 0], table[:, 1:], self._time) for table in rated]
        self._raters = np.stack(values, axis=1) if values else np.zeros((0, 1, 2))
        gold = [annotations.gold_standard(self._raters[:, :, d], method) for d in range(2)] if len(self._time) else []
        self._gold = np.stack(gold, axis=1) if gold else np.zeros((0, 2))

    @property
    def spans(self) -> list[coverage.Span]:
        """The times of the annotation, if there is one."""
        return [coverage.Span.of(self._time, self._step)] if len(self._time) else []

    def __call__(self, at: np.ndarray) -> Annotation:
        if not len(self._time):
            return Annotation(np.full((len(at), 2), np.nan), np.full((len(at), self._count, 2), np.nan))
        raters = [annotations.resample(self._time, self._raters[:, :, d], at, self._step) for d in range(2)]
        return Annotation(annotations.resample(self._time, self._gold, at, self._step), np.stack(raters, axis=2))


def _digest(table: Table, name: str) -> str:
    """Hashes what the table says of a recording, so that finished work of another table is not reused."""
    said = [table.classes, table.raters, table.labels.get(name), table.traces.get(name)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _held_out(name: str) -> str:
    """Assigns a fifth of the names to dev, always the same ones."""
    return "dev" if hashlib.sha256(name.encode()).digest()[0] < 51 else "train"
