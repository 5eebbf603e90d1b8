"""Features that others have extracted: tables of any kind to one record per recording, as `launch.py extract` writes.

`data_prep.features.specs` says how streams are named; docs/features.md has examples.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep import annotations
from data_prep.corpora.base import Corpus, Item
from data_prep.features import about, align, labels, presets, recording, sources, specs, survey
from data_prep.features.rows import Part
from media.errors import UserError, unknown
from media.records import stream_features


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of features. Paths are relative to --source; docs/features.md has examples.

    preset: a name, or a TOML file, that sets the options that are not given. audio, visual, text, physio: tables of
    each modality. labels: table or folder of traces of valence and arousal. table: a line per recording with any of
    split, subject, group and label. align: interpolate, mean or nearest. window: seconds of the mean, 0 = the labels'
    step. rate: rows per second of the records, 0 = the labels' times. delay: seconds by which labels are moved earlier
    for good. gold_standard: mean, ewe or ccc, of raters. scale: lowest and highest label. split: train, dev or test for
    all; by default the table or the names say it (train_1, Devel_DE_01). folds, fold: every so many subjects or
    recordings are dev. group: regular expression whose first group, in a name, is the recording's culture, session or
    the like. hold_out: groups that are dev, separated by commas. subject: regular expression for the speaker. exclude:
    patterns of recordings to leave out. max_missing: share of the recordings that a stream may lack. tolerance: seconds
    by which labels may outlast features. dry_run: print what was found and write nothing.
    """

    preset: str = ""
    audio: str = ""
    visual: str = ""
    text: str = ""
    physio: str = ""
    labels: str = ""
    table: str = ""
    align: str = "interpolate"
    window: float = 0.0
    rate: float = 0.0
    delay: float = 0.0
    gold_standard: str = "ewe"
    scale: str = "-1,1"
    split: str = ""
    folds: int = 0
    fold: int = 0
    group: str = ""
    hold_out: str = ""
    subject: str = ""
    exclude: str = ""
    max_missing: float = 0.2
    tolerance: float = 1.0
    dry_run: bool = False

    def resolved(self) -> "Options":
        """These options, with the preset's values for those that were not given.

        An option that is given with its default value counts as not given: the preset's value wins.

        Raises:
          UserError: the preset does not exist or sets an unknown option.
        """
        if not self.preset:
            return self
        known = {field.name: field.default for field in dataclasses.fields(self)}
        chosen = presets.options(self.preset)
        for option, value in chosen.items():
            if option not in known or option in ("preset", "dry_run"):
                raise unknown(f"option in preset {self.preset}", option, known)
            if type(value) is not type(known[option]) and not (isinstance(value, int) and known[option] == 0):
                raise UserError(f"preset {self.preset}: {option} = {value!r} is no {type(known[option]).__name__}.")
        return dataclasses.replace(self, **{k: v for k, v in chosen.items() if getattr(self, k) == known[k]})

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        chosen = self.resolved()
        if chosen.align not in specs.ALIGN:
            raise unknown("value of --align", chosen.align, specs.ALIGN)
        annotations.GOLD_STANDARDS[chosen.gold_standard]
        chosen.range()
        if chosen.split and chosen.split not in about.SPLITS:
            raise unknown("value of --split", chosen.split, about.SPLITS)
        if chosen.folds < 0 or not 0 <= chosen.fold < max(chosen.folds, 1):
            raise UserError(
                f"--fold={chosen.fold}: folds are counted from 0 to {max(chosen.folds, 1) - 1} (see --folds)."
            )
        for option, least, most in (("rate", 0, 1e6), ("window", 0, 1e6), ("max_missing", 0, 1), ("tolerance", 0, 1e9)):
            if not least <= getattr(chosen, option) <= most:
                raise UserError(f"--{option}={getattr(chosen, option)} must be {least} to {most:g}.")
        if not specs.streams(dataclasses.asdict(chosen)):
            flags = ", ".join(f"--{m}=DIR" for m in specs.MODALITIES)
            raise UserError(
                f"no features are named: give one of {flags}, or --preset (known: {', '.join(presets.names())})."
            )
        if not chosen.labels and not chosen.table:
            raise UserError("no labels are named: give --labels=DIR with traces, or --table=FILE with a column label.")

    def range(self) -> tuple[float, float]:
        """The lowest and highest label."""
        try:
            low, high = (float(number) for number in self.scale.split(","))
        except ValueError as error:
            raise UserError(f"--scale={self.scale}: expected LOW,HIGH such as 1,9.") from error
        if not low < high:
            raise UserError(f"--scale={self.scale}: the first number must be the smaller one.")
        return low, high


class Features(Corpus):
    """Features that others have extracted."""

    name = "features"
    kind = "features"
    title = "Features that others extracted: CSV, ARFF, NumPy, HDF5, Parquet"
    licence = "that of your files"
    access = "Your own tables."
    layout = """
        a folder or file of tables per stream, and one of labels, under any names; or the tree of a --preset
        (docs/features.md)
    """
    chunk = 1
    shuffle = False
    Options = Options
    passing = ("dry_run",)

    def __init__(self, source: pathlib.Path, options: Any, output: pathlib.Path | None = None):
        super().__init__(source, options.resolved(), output)
        self.streams = specs.streams(dataclasses.asdict(self.options))
        self.labels = specs.table(self.options.labels, "labels")[0] if self.options.labels else None
        self.columns: dict[str, list[str]] = {}  # of each stream; known after `items`, like the next three
        self._raters: tuple[str, ...] = ()
        self._classes: list[str] = []
        self._step = 0.0

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records: every stream with its mask."""
        if self.streams and not self.columns:
            self.items()
        dims = {name: len(columns) for name, columns in self.columns.items()}
        return stream_features(dims, self._classes or about.classes({}), len(self._raters))

    def card(self) -> dict[str, Any]:
        """The streams."""
        return {
            "streams": [
                {"name": s.name, "modality": s.modality, "dim": len(self.columns[s.name]), "source": s.source}
                for s in self.streams
            ]
        }

    def items(self) -> Sequence[Item]:
        """Lists the recordings that have labels, and those without that are test."""
        self.notes.clear()
        options = self.options
        path = self.source / options.table
        listed = about.read(path) if options.table else {}
        found = sources.find(
            self.source, self.streams, self.labels, list(listed), options.exclude, options.max_missing, self.notes
        )
        known = self._known(found, listed, path)
        labelled = set(found.labels) if self.labels else {name for name in known if known[name].label}
        split = about.splits(known, options.split, options.folds, options.fold, options.hold_out, labelled)
        lost = [name for name in known if name not in labelled and split[name] != "test"]
        if lost:
            self.notes.append(f"{len(lost)} recordings without labels are left out, such as {lost[0]!r}")
        self.columns = {
            s.name: [c for i, t in enumerate(s.tables) for c in sources.columns(found.streams[s.name], i, t)]
            for s in self.streams
        }
        self._raters = (
            labels.raters([p for n, p in found.labels.items() if n in known], self.labels) if self.labels else ()
        )
        self._classes = about.classes(known)
        items = [self._item(name, split[name], known[name], found) for name in known if name not in lost]
        rated = next((item for item in items if item.payload["labels"]), None)
        self._step = 1 / options.rate if options.rate else 0.0
        if not self._step and rated:
            self._step = align.step_of(self.traces(rated).time)
        return sorted(items, key=lambda item: (about.SPLITS.index(item.split), item.key))

    def _known(
        self, found: sources.Sources, listed: Mapping[str, about.About], path: pathlib.Path
    ) -> dict[str, about.About]:
        rows = about.onto(found.names, listed, path, self.notes) if listed else {}
        out = {}
        for name in found.names:
            row = rows.get(name, about.About())
            for part in found.labels.get(name, {}).values():
                place = pathlib.Path(part.path)
                # Folders above the source, or of labels elsewhere, are no part of the data set.
                folders = place.relative_to(self.source).parts[:-1] if place.is_relative_to(self.source) else ()
                said = next((split for folder in folders if (split := about.split_by_name(folder))), "")
                row = dataclasses.replace(row, split=row.split or about.split_by_name(name) or said)
            out[name] = dataclasses.replace(
                row,
                subject=row.subject or about.picked("subject", self.options.subject, name),
                group=row.group or about.picked("group", self.options.group, name),
            )
        return out

    def _item(self, name: str, split: str, known: about.About, found: sources.Sources) -> Item:
        payload = {
            "streams": {
                s.name: [part.to_json() if part else None for part in found.streams[s.name].get(name, ())]
                for s in self.streams
            },
            "labels": {dimension: part.to_json() for dimension, part in found.labels.get(name, {}).items()},
            "subject": known.subject,
            "group": known.group,
            "label": self._classes.index(known.label) if known.label else -1,
        }
        return Item(name, split, known.subject, payload)

    def sources(self, item: Item) -> Iterator[str]:
        """Yields the files of an item's streams and labels."""
        parts = [part for parts in item.payload["streams"].values() for part in parts]
        yield from sorted({part["path"] for part in [*parts, *item.payload["labels"].values()] if part})

    def traces(self, item: Item) -> labels.Traces:
        """The labels of an item that has some.

        Raises:
          UserError: they cannot be used.
        """
        assert self.labels is not None
        low, high = self.options.range()
        how = labels.Reading(self.labels, self.options.delay, self.options.gold_standard, low, high, self._raters)
        return labels.read({d: Part.from_json(part) for d, part in item.payload["labels"].items()}, how)

    def tables(self, item: Item) -> dict[str, list[recording.Table | None]]:
        """The tables of an item's streams, read; None for a missing one.

        Raises:
          UserError: one cannot be used; file, line and remedy are named.
        """
        out = {}
        for stream in self.streams:
            stored = item.payload["streams"][stream.name] or [None] * len(stream.tables)
            out[stream.name] = [
                None if part is None else recording.read(spec, Part.from_json(part))
                for spec, part in zip(stream.tables, stored, strict=True)
            ]
        return out

    def rehearse(self) -> tuple[str, bool]:
        """Reads everything and writes nothing: what was found, for the screen, and whether all of it matches.

        Raises:
          UserError: the tables of the recordings cannot even be found.
        """
        items = self.items()
        found = survey.Survey(self.streams, {name: len(columns) for name, columns in self.columns.items()})
        for item in items:
            found.begin(item.split, item.payload["group"])
            try:
                tables = self.tables(item)
                found.tables(tables)
                found.record(self._record(item, tables))
            except UserError as error:
                found.problems.append(str(error))
        return found.text(self.notes), not found.problems

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the record of one recording.

        Raises:
          UserError: a table cannot be used; file, line and remedy are named.
        """
        yield self._record(item, self.tables(item))

    def _record(self, item: Item, tables: Mapping[str, Sequence[recording.Table | None]]) -> dict[str, Any]:
        if item.payload["labels"]:
            traces = self.traces(item)
        else:
            step, end = recording.extent(tables, self._step)
            traces = labels.unlabelled(end, step, len(self._raters))
        return recording.record(item.key, item.payload, self.streams, self.columns, tables, traces, self.options)
