"""A data set of features in memory, in the splits and with the standardisation that a config asks for."""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from avemo import configuration
from avemo.configuration import STREAMS
from avemo.data import features, folds, shards
from avemo.data.features import Recording
from media.errors import UserError, unknown

STANDARDISE = ("train", "group", "recording", "off")


class FeatureSet:
    """The recordings of a data set.

    Attributes:
      folder: the data set.
      streams: names of the streams that are read.
      fold: the fold that decides on the splits; None: the data set's own.
      class_names: the classes of its labels.
    """

    def __init__(self, folder: str, config: ConfigDict):
        self.folder, self.streams, self.fold = folder, configuration.streams(config.model), folds.of_config(config)
        self.by = config.data.get("standardise", folds.NONE)
        if self.by not in (*STANDARDISE, folds.NONE):
            raise unknown("data.standardise", self.by, STANDARDISE)
        own = shards.splits(folder)
        self._own = own
        self.first = "train" if self.fold or "train" in own else own[0]
        self.class_names = tuple(shards.Shards(folder, own[0] if self.fold else self.first).class_names)

    def with_fold(self, config: ConfigDict) -> "FeatureSet":
        """This set in the splits of another config's fold, with the same recordings in memory."""
        fold = folds.of_config(config)
        if fold is None or self.fold is None:
            raise UserError("folds and a data set's own splits are not trained together.")
        other = copy.copy(self)
        other.__dict__.pop("_parts", None)
        other.fold, other.__dict__["_whole"] = fold, self._whole
        return other

    @property
    def splits(self) -> list[str]:
        """The splits, sorted."""
        if self.fold is None:
            return sorted(self._own)
        return sorted(split for split in folds.SPLITS if split != "dev" or self.fold.parts)

    @functools.cached_property
    def _whole(self) -> list[Recording]:
        """The recordings of all splits, sorted by name."""
        every = [recording for split in self._own for recording in self._read(split)]
        return folds.order(self._standardised(every, every))

    @functools.cached_property
    def _parts(self) -> dict[str, list[int]]:
        assert self.fold is not None, "only folds are parts of the whole"
        return self.fold.split(self._whole)

    def table(self) -> tuple[list[Recording], list[int]]:
        """Recordings, and the numbers of those to train on. The recordings of all folds are the same."""
        if self.fold is not None:
            return self._whole, self._parts["train"]
        train = self.recordings("train")
        return train, list(range(len(train)))

    def recordings(self, split: str) -> list[Recording]:
        """The recordings of a split."""
        if self.fold is None:
            return self._split(split)
        if split not in self._parts or not self._parts[split]:
            raise UserError(f"fold {self.fold.number}/{self.fold.count} has no split {split!r}: set data.dev_part.")
        return [self._whole[number] for number in self._parts[split]]

    @functools.cache  # noqa: B019 - a set lives as long as its run
    def _split(self, split: str) -> list[Recording]:
        found = self._read(split)
        return self._standardised(found, found)

    def _read(self, split: str) -> list[Recording]:
        return features.load(self.folder, split, self.streams)[0]

    def _standardised(self, recordings: Sequence[Recording], beside: Sequence[Recording]) -> list[Recording]:
        """The recordings, each stream standardised by its recording or its group among `beside`, if asked for.

        No label is read, but a recording that is tested tells its own mean and deviation.
        """
        if self.by not in ("group", "recording"):
            return list(recordings)
        if self.by == "group" and not all(recording.group for recording in recordings):
            raise UserError(f"data.standardise=group, but {self.folder} has recordings without a group.")
        key = (lambda r: r.group) if self.by == "group" else (lambda r: r.name)
        together: dict[str, list[Recording]] = {}
        for recording in beside:
            together.setdefault(key(recording), []).append(recording)
        found = {
            name: {stream: features.moments(members, stream) for stream in self.streams}
            for name, members in together.items()
        }
        return [_shifted(recording, found[key(recording)]) for recording in recordings]


def _shifted(recording: Recording, moments: dict[str, tuple[np.ndarray, np.ndarray]]) -> Recording:
    """The recording with each stream less its mean, over its deviation."""
    frames = {name: (recording.stream(name) - mean) / deviation for name, (mean, deviation) in moments.items()}
    own = {name: x for name, x in frames.items() if name in STREAMS}
    others = {**recording.others, **{name: x for name, x in frames.items() if name not in own}}
    return dataclasses.replace(recording, **own, others=others)


def with_streams(config: ConfigDict) -> ConfigDict:
    """The config with `model.streams` of its data set, if it is "auto" and they are not the default two."""
    if config.get("task") != "audiovisual" or config.model.get("streams") != "auto":
        return config
    folder = config.data.get("features")
    if not folder:
        return config
    found = features.streams_of(folder, shards.splits(folder)[0])
    if found == STREAMS:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        config.model.streams = found
    return config
