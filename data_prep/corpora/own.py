"""Your own recordings: a folder of videos or sound files, with labels if you have any.

`labels.csv` in that folder has a header and one of two forms (further columns are ignored):

    file,label[,subject][,split]                        one line per recording
    file,time,valence,arousal[,rater][,subject][,split] one line per moment; several raters become a gold standard

`file` is the path below the folder and `time` is in seconds. Valence and arousal lie in [-1, 1] unless
`--scale=LOW,HIGH` names another range. Without `split`, about a fifth of the subjects is held out as `dev` (or of the
recordings, if no subject is given). Without `labels.csv`, everything is `test`.
"""

import collections
import csv
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import annotations
from data_prep.clips import Annotation, ClipOptions, clip_records, no_annotation
from data_prep.corpora.base import Corpus, Item
from media import video
from media.errors import BadItem, UserError
from media.records import CLASSES, clips_features

LABELS = "labels.csv"
SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of your own recordings, besides those of clips and faces.

    labels: the table, by default `labels.csv` in the source. gold_standard: mean, ewe or ccc. scale: lowest and highest
    value of valence and arousal in the table, which are mapped to [-1, 1].
    """

    labels: str = ""
    gold_standard: str = "ewe"
    scale: str = "-1,1"

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        annotations.GOLD_STANDARDS[self.gold_standard]
        self.range()
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


@dataclasses.dataclass
class Table:
    """The contents of `labels.csv` by file: label, subject, split, and each rater's lines (time, valence, arousal)."""

    labels: dict[str, str]
    subjects: dict[str, str]
    splits: dict[str, str]
    traces: dict[str, dict[str, list[tuple[float, float, float]]]]

    @property
    def files(self) -> set[str]:
        """Every file that the table names."""
        return {*self.labels, *self.subjects, *self.splits, *self.traces}

    @property
    def classes(self) -> list[str]:
        """The classes in order: the eight canonical ones if they include the table's, otherwise the table's, sorted."""
        found = sorted(set(self.labels.values()))
        return list(CLASSES) if set(found) <= set(CLASSES) else found

    @property
    def raters(self) -> list[str]:
        """Names of the raters, sorted."""
        return sorted({rater for traces in self.traces.values() for rater in traces})


@functools.lru_cache(maxsize=4)
def read_table(path: pathlib.Path, low: float, high: float) -> Table:
    """Reads `labels.csv`.

    Raises:
      UserError: a column is missing or a cell cannot be read.
    """
    table = Table({}, {}, {}, collections.defaultdict(lambda: collections.defaultdict(list)))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): save it as UTF-8.") from error
    lines = csv.DictReader(text.splitlines(), skipinitialspace=True)
    lines.fieldnames = [name.strip().lower() for name in lines.fieldnames or []]
    columns = set(lines.fieldnames)
    timed = {"time", "valence", "arousal"} <= columns
    if "file" not in columns or not (timed or columns & {"label", "split", "subject"}):
        raise UserError(
            f"{path}: the header must have file,label or file,time,valence,arousal; it has {sorted(columns)}."
        )
    for number, row in enumerate(lines, start=2):
        row = {key: value.strip() for key, value in row.items() if isinstance(value, str)}
        name = row.get("file", "")
        if not name:
            raise UserError(f"{path}, line {number}: column file is empty; name a file or remove the line.")
        for column, where in (("label", table.labels), ("subject", table.subjects), ("split", table.splits)):
            value = row.get(column, "")
            if value and where.setdefault(name, value) != value:
                raise UserError(
                    f"{path}, line {number}: {name} has {column} {value!r}, but had {where[name]!r} in an earlier line."
                )
        if row.get("split") and row["split"] not in SPLITS:
            raise UserError(f"{path}, line {number}: split {row['split']!r} is not one of {', '.join(SPLITS)}.")
        if timed and row.get("time"):
            try:
                time, *values = (float(row.get(key, "")) for key in ("time", "valence", "arousal"))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: time, valence or arousal is no number ({error}).") from error
            if not all(low <= value <= high for value in values):
                raise UserError(
                    f"{path}, line {number}: valence and arousal {values} are outside {low:g} to {high:g}: "
                    "name their range by --scale=LOW,HIGH."
                )
            valence, arousal = (2 * (value - low) / (high - low) - 1 for value in values)
            table.traces[name][row.get("rater", "")].append((time, valence, arousal))
    return table


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
        paths = {
            str(path.relative_to(self.source)): str(path)
            for path in self.files(self.source, (*video.SUFFIXES, *video.SOUND_SUFFIXES))
        }
        names = sorted({*paths, *(table.files if table else ())})
        items = []
        for name in names:
            subject = table.subjects.get(name, "") if table else ""
            if table and name in table.files:
                split = table.splits.get(name) or _held_out(subject or name)
            else:
                split = "test"  # nothing is known about it, so it can only be predicted
            items.append(Item(name, split, subject, {"path": paths.get(name, "")}))
        named = [item for item in items if item.split != "test"]
        if table and len(named) > 1 and not table.splits and len({item.split for item in named}) == 1:
            # So few that chance held out none or all: the last recording's subject becomes dev.
            last = named[-1]
            out = {item.key for item in named if item is last or (last.subject and item.subject == last.subject)}
            items = [
                item if item.split == "test" else dataclasses.replace(item, split="dev" if item.key in out else "train")
                for item in items
            ]
        return items

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one recording's segments."""
        if not item.payload["path"]:
            raise BadItem(f"{LABELS} names it, but it is not in the folder")
        path, table = pathlib.Path(item.payload["path"]), self._table()
        label = -1
        annotate: Callable[[np.ndarray], Annotation] = no_annotation
        if table:
            label = table.classes.index(table.labels[item.key]) if item.key in table.labels else -1
            annotate = _RatedTraces(table.traces.get(item.key, {}), table.raters, self.options.gold_standard)
        picture = path if path.suffix.lower() in video.SUFFIXES else None
        yield from clip_records(
            item.key,
            options=self.options,
            subject=item.subject,
            picture=picture,
            sound=None if picture else path,
            annotate=annotate,
            label=label,
        )


class _RatedTraces:
    """The traces of one recording, resampled to any times; all NaN if nobody rated it."""

    def __init__(
        self, by_rater: Mapping[str, Sequence[tuple[float, float, float]]], raters: Sequence[str], method: str
    ):
        self._count = max(1, len(raters))
        tables = [np.array(sorted(by_rater.get(rater, ())), np.float64).reshape(-1, 3) for rater in raters]
        self._time = np.unique(np.concatenate([table[:, 0] for table in tables])) if tables else np.zeros(0)
        values = [annotations.resample(table[:, 0], table[:, 1:], self._time) for table in tables]
        self._raters = np.stack(values, axis=1) if values else np.zeros((0, 1, 2))
        gold = [annotations.gold_standard(self._raters[:, :, d], method) for d in range(2)] if len(self._time) else []
        self._gold = np.stack(gold, axis=1) if gold else np.zeros((0, 2))

    def __call__(self, at: np.ndarray) -> Annotation:
        if not len(self._time):
            return Annotation(np.full((len(at), 2), np.nan), np.full((len(at), self._count, 2), np.nan))
        raters = [annotations.resample(self._time, self._raters[:, :, d], at) for d in range(2)]
        return Annotation(annotations.resample(self._time, self._gold, at), np.stack(raters, axis=2))


def _held_out(name: str) -> str:
    """Assigns a fifth of the names to dev, always the same ones."""
    return "dev" if hashlib.sha256(name.encode()).digest()[0] < 51 else "train"
