"""RECOLA (Ringeval et al. 2013): pairs working over a video link, six raters' valence and arousal at 25 Hz.

Reads the public download and the layouts of the AVEC challenges.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import annotations, coverage, tables
from data_prep.clips import Annotation, ClipOptions, clip_records
from data_prep.corpora.base import Corpus, Item
from media.errors import BadItem, UserError
from media.records import clips_features
from media.video import SUFFIXES

# The split of the AVEC challenges by participant number. The labels of `test` were never published.
CHALLENGE_SPLIT = {
    "train": (16, 21, 23, 25, 37, 39, 41, 46, 56),
    "dev": (19, 26, 28, 30, 34, 42, 45, 64, 65),
    "test": (13, 20, 32, 38, 47, 49, 53, 59, 63),
}
RATERS = ("FM1", "FM2", "FM3", "FF1", "FF2", "FF3")
AVEC_FOLDERS = ("recordings_video", "ratings_gold_standard", "ratings_individual")
DIMENSIONS = ("valence", "arousal")
SPLITS = ("train", "dev", "test")

Files = Mapping[str, str]  # paths by recording
AnnotationFiles = Mapping[str, tuple[str | None, str | None]]  # raters' file and gold standard's file by dimension


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of RECOLA, besides those of clips and faces.

    gold_standard: how six raters become one trace, "mean", "ewe" or "ccc". split: "challenge" (27 participants) or
    "all" (every annotated participant of the public download, 46 in the whole corpus). folds, fold: number of folds,
    and the one that becomes dev, 0 <= fold < folds; the other participants train. 0 folds uses the split as it is.
    split_file: CSV with lines `recording,split` (train, dev, test) that replaces the options above.
    """

    gold_standard: str = "ewe"
    split: str = "challenge"
    folds: int = 0
    fold: int = 0
    split_file: str = ""

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        annotations.GOLD_STANDARDS[self.gold_standard]
        if self.split not in ("challenge", "all"):
            raise UserError(f"--split is challenge or all, not {self.split!r}; folds are --folds=K --fold=I.")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--folds must be at least 2 (or 0 for none), not {self.folds}.")
        if not 0 <= self.fold < max(self.folds, 1):
            raise UserError(f"--fold={self.fold}: folds are counted from 0 to {max(self.folds, 1) - 1} (see --folds).")
        if self.split_file and (self.folds or self.split != "challenge"):
            raise UserError("--split_file names every recording's split: leave --split and --folds out.")
        if self.split_file:
            read_split_file(pathlib.Path(self.split_file))


def read_split_file(path: pathlib.Path) -> dict[str, str]:
    """Reads lines of `recording,split`, skipping a header line.

    Raises:
      UserError: the file cannot be read, or a line is not such a pair.
    """
    try:
        lines = list(tables.cells(tables.decode(path.read_bytes())[0].replace(";", ",").splitlines()))
    except OSError as error:
        raise UserError(f"--split_file={path} cannot be read: {error.strerror}.") from error
    except tables.TableError as error:
        raise UserError(f"--split_file={path}: {error}.") from error
    out: dict[str, str] = {}
    for number, line in lines:
        cells = [cell.strip() for cell in line if cell.strip()]
        if not cells or (number == 1 and cells[-1] == "split"):
            continue
        if len(cells) != 2 or cells[1] not in SPLITS:
            raise UserError(f"{path}, line {number}: expected `recording,split` with one of {', '.join(SPLITS)}.")
        out[cells[0]] = cells[1]
    return out


def participant(recording: str) -> int:
    """The number in a recording's name: P16 -> 16, train_3 -> 3; 0 if it has none."""
    digits = "".join(c for c in recording if c.isdigit())
    return int(digits) if digits else 0


def split_all(names: Collection[str], folds: int = 0, fold: int = 0) -> dict[str, str]:
    """Splits participants by their position in the order of their numbers, which is the same on every machine.

    Args:
      names: the recordings, one per participant.
      folds: if K > 0, the participants at positions `fold` modulo K are dev and the others train. If 0, the third of
        every six is dev and the sixth is test (46 participants give train 31, dev 8, test 7).
      fold: the fold that becomes dev.

    Returns:
      The split of each recording.

    Raises:
      UserError: more folds than participants.
    """
    ordered = sorted(names, key=lambda name: (participant(name), name))
    if folds > len(ordered):
        raise UserError(f"--folds={folds} is too many: only {len(ordered)} participants are annotated.")
    if folds:
        return {name: "dev" if place % folds == fold else "train" for place, name in enumerate(ordered)}
    return {name: {2: "dev", 5: "test"}.get(place % 6, "train") for place, name in enumerate(ordered)}


class Recola(Corpus):
    """Five-minute recordings with traces of valence and arousal."""

    name = "recola"
    kind = "clips"
    title = "RECOLA: spontaneous remote collaboration, continuous valence and arousal by six raters"
    citation = (
        "Ringeval, Sonderegger, Sauer, Lalanne: Introducing the RECOLA Multimodal Corpus of Remote Collaborative and "
        "Affective Interactions. EmoSPACE, 2013."
    )
    licence = "end user licence agreement, research only"
    homepage = "https://diuf.unifr.ch/main/diva/recola/"
    access = (
        "Ask at https://diuf.unifr.ch/main/diva/recola/ (a permanent member of staff signs an end user licence "
        "agreement); the AVEC layouts came from the organisers of the challenges."
    )
    layout = """
        public: RECOLA-Annotation/emotional_behaviour/{arousal,valence}/P16.csv, RECOLA-Audio-recordings/P16.wav,
        RECOLA-Video-recordings/P16.mp4
        AVEC: recordings_audio/train_1.wav, recordings_video/train_1.mp4, and ratings_gold_standard/{arousal,valence}/
        train_1.arff (2015), the same and ratings_individual/{arousal,valence}/train_1.csv (2016), or only these (2018)
    """
    shuffle = False
    chunk = 1
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records, with six raters."""
        return clips_features(num_raters=len(RATERS), image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every recording of the split that has a video, a sound file or an annotation."""
        if (self.source / "RECOLA-Annotation").is_dir() or (self.source / "RECOLA-Video-recordings").is_dir():
            items = self._public()
        elif any((self.source / name).is_dir() for name in AVEC_FOLDERS):
            items = self._avec()
        else:
            raise self.wrong_layout("neither RECOLA-Annotation nor recordings_video was found")
        if not items:
            raise self.wrong_layout("no recording of the split was found; --split_file names another split")
        return items

    def _public(self) -> list[Item]:
        videos = self._by_stem(self.source / "RECOLA-Video-recordings", SUFFIXES)
        sounds = self._by_stem(self.source / "RECOLA-Audio-recordings", (".wav", ".flac"))
        ratings = self.source / "RECOLA-Annotation" / "emotional_behaviour"
        traces = {name: self._by_stem(ratings / name, (".csv",)) for name in DIMENSIONS}
        present = set(videos) | set(sounds) | set(traces["valence"]) | set(traces["arousal"])
        annotated = set(traces["valence"]) & set(traces["arousal"])
        challenge = {f"P{number}": name for name, numbers in CHALLENGE_SPLIT.items() for number in numbers}
        if self.options.split_file:
            split = read_split_file(pathlib.Path(self.options.split_file))
        elif self.options.split == "all":
            split = split_all(annotated, self.options.folds, self.options.fold)
        elif self.options.folds:  # the challenge's participants with published labels
            split = split_all(annotated & set(challenge), self.options.folds, self.options.fold)
        else:
            split = challenge
        # Recordings outside the split are left out: published scores do not use them.
        return [
            self._item(name, split[name], videos, sounds, {d: (traces[d].get(name), None) for d in DIMENSIONS})
            for name in sorted(present & set(split), key=lambda n: (SPLITS.index(split[n]), n))
        ]

    def _avec(self) -> list[Item]:
        videos = self._by_stem(self.source / "recordings_video", SUFFIXES)
        sounds = self._by_stem(self.source / "recordings_audio", (".wav", ".flac"))
        single = {d: self._by_stem(self.source / "ratings_individual" / d, (".csv",)) for d in DIMENSIONS}
        gold = {d: self._by_stem(self.source / "ratings_gold_standard" / d, (".arff",)) for d in DIMENSIONS}
        if self.options.split == "all":
            raise UserError(
                "--split=all needs the public download: the AVEC layouts hold the challenge's participants."
            )
        own = read_split_file(pathlib.Path(self.options.split_file)) if self.options.split_file else {}
        if self.options.folds:
            annotated = (set(gold["valence"]) & set(gold["arousal"])) | (
                set(single["valence"]) & set(single["arousal"])
            )
            # train_1 and dev_1 are different participants, so the set's name is part of the participant's.
            labelled = sorted(name for name in annotated if name.split("_")[0] in SPLITS)
            own = split_all(labelled, self.options.folds, self.options.fold)
        items = []
        for name in sorted(set(videos) | set(sounds) | set(gold["valence"]) | set(gold["arousal"])):
            split = own.get(name) or name.split("_")[0]
            if split in SPLITS:
                files = {d: (single[d].get(name), gold[d].get(name)) for d in DIMENSIONS}
                items.append(self._item(name, split, videos, sounds, files))
        return sorted(items, key=lambda item: (SPLITS.index(item.split), item.key))

    def _by_stem(self, folder: pathlib.Path, suffixes: Sequence[str]) -> dict[str, str]:
        """Files of a folder by their name without suffix; empty if the folder is missing."""
        if not folder.is_dir():
            return {}
        return {path.stem: str(path) for path in self.files(folder, suffixes, recursive=False)}

    def _item(self, name: str, split: str, videos: Files, sounds: Files, annotated: AnnotationFiles) -> Item:
        payload = {"video": videos.get(name, ""), "sound": sounds.get(name, "")}
        for dimension, (single, gold) in annotated.items():
            payload[dimension], payload[f"{dimension}_gold"] = single or "", gold or ""
        return Item(name, split, name, payload)

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields the recording's segments. Only `test` may lack an annotation."""
        video, sound = item.payload["video"], item.payload["sound"]
        if not video:
            raise BadItem("its video is missing")
        if not sound:
            raise BadItem("its sound file is missing")
        annotated = all(item.payload[d] or item.payload[f"{d}_gold"] for d in DIMENSIONS)
        if not annotated and item.split != "test":
            raise BadItem("its annotation is missing")
        # Without annotation, all six raters of the schema are absent.
        traces = _RatedTraces(item.payload, self.options.gold_standard) if annotated else None
        yield from clip_records(
            item.key,
            options=self.options,
            subject=item.subject,
            picture=pathlib.Path(video),
            sound=pathlib.Path(sound),
            annotate=traces or _unrated,
            spans=traces.spans if traces else (),
        )


class _RatedTraces:
    """The raters' traces and the gold standard of a recording, resampled to any times."""

    def __init__(self, files: Files, method: str):
        self._dimensions = []
        for dimension in DIMENSIONS:
            time, raters = np.zeros(0), np.zeros((0, len(RATERS)))
            if files[dimension]:
                time, names, values = annotations.read_traces(pathlib.Path(files[dimension]))
                missing = set(RATERS) - set(names)
                if missing:
                    raise BadItem(f"annotation of {dimension} has no column {', '.join(sorted(missing))}")
                raters = values[:, [names.index(name) for name in RATERS]]
            if files[f"{dimension}_gold"]:  # the challenge's own gold standard takes precedence
                gold_time, gold = annotations.read_arff(pathlib.Path(files[f"{dimension}_gold"]))
            else:
                gold_time, gold = time, annotations.gold_standard(raters, method)
            self._dimensions.append((time, raters, gold_time, gold))

    @property
    def spans(self) -> list[coverage.Span]:
        """The times of the raters and of the gold standards.

        Raises:
          BadItem: one of them is empty.
        """
        times = [time for rated, _, gold, _ in self._dimensions for time in (rated, gold) if len(time)]
        if not times:
            raise BadItem("its annotation is empty")
        return [coverage.Span.of(time) for time in times]

    def __call__(self, at: np.ndarray) -> Annotation:
        targets = [annotations.resample(time, gold, at) for _, _, time, gold in self._dimensions]
        raters = [annotations.resample(time, values, at) for time, values, _, _ in self._dimensions]
        return Annotation(np.stack(targets, axis=1), np.stack(raters, axis=2))


def _unrated(at: np.ndarray) -> Annotation:
    return Annotation(np.full((len(at), 2), np.nan), np.full((len(at), len(RATERS), 2), np.nan))
