"""RAVDESS (Livingstone & Russo 2018): actors speak two sentences in eight emotions, on video or as sound."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep.clips import ClipOptions, clip_records
from data_prep.corpora.base import Corpus, Item
from data_prep.corpora.speakers import by_speaker, numbers
from media import video
from media.errors import BadItem, UserError, unknown
from media.files import shown
from media.records import clips_features

# RAVDESS's own classes in its own order (codes 01 to 08), which include calm.
EMOTIONS = ("neutral", "calm", "happy", "sad", "anger", "fear", "disgust", "surprise")
# The codes of files in the order in which a modality prefers them: Zenodo ships most takes both with sound (01) and
# without (02). A modality in `EXACT` takes no other.
MODALITIES = {"video": ("01", "02", "03"), "audio-video": ("01",), "video-only": ("02",), "audio": ("03", "01", "02")}
EXACT = ("audio-video", "video-only")


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of RAVDESS, besides those of clips and faces.

    modality: "video" (each take that has a picture once, with its sound if a file has both), "audio-video" (files with
    both), "video-only" (files that are silent) or "audio" (sound alone: regular frame times, no face). split: "speaker"
    (no speaker is in two splits), "take" (for one speaker: all repetitions of a sentence, emotion and intensity stay
    in one split), "fold" (for few speakers: test has one sentence in one repetition, train the other sentence in the
    other repetition, and dev the rest, which shares sentence or repetition with both) or "auto" (by speaker if there
    are at least three, otherwise by take). fold: 1 to 4, the sentence and repetition of test: 1 and 1, 1 and 2, 2 and
    1, 2 and 2. dev_speakers, test_speakers: numbers such as 11,12; by default about a sixth of the speakers is dev and
    nobody is test. classes: "all", or the names to keep.
    """

    modality: str = "video"
    split: str = "auto"
    fold: int = 0
    dev_speakers: str = ""
    test_speakers: str = ""
    classes: str = "all"

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        if self.modality not in MODALITIES:
            raise unknown("modality", self.modality, MODALITIES)
        if self.split not in ("auto", "speaker", "take", "fold"):
            raise UserError(f"--split is auto, speaker, take or fold, not {self.split!r}.")
        if (self.split == "fold") != (self.fold in (1, 2, 3, 4)):
            raise UserError(f"--split=fold takes --fold=1 to 4 and no other split takes --fold, which is {self.fold}.")
        for flag in ("dev_speakers", "test_speakers"):
            numbers(getattr(self, flag), flag)
        for name in kept(self.classes):
            if name not in EMOTIONS:
                raise unknown("emotion in --classes", name, EMOTIONS)


def kept(classes: str) -> list[str]:
    """The emotions that `--classes` keeps."""
    return list(EMOTIONS) if classes == "all" else [name.strip() for name in classes.split(",") if name.strip()]


def parse(stem: str) -> dict[str, str]:
    """Reads the seven codes of a file's name, `MM-VV-EE-II-SS-RR-NN`.

    Raises:
      BadItem: the name does not have this form, or its emotion is unknown.
    """
    codes = stem.split("-")
    if len(codes) != 7 or not all(code.isdigit() and len(code) == 2 for code in codes):
        raise BadItem("its name is not of the form MM-VV-EE-II-SS-RR-NN")
    take = dict(
        zip(("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor"), codes, strict=True)
    )
    if not 1 <= int(take["emotion"]) <= len(EMOTIONS):
        raise BadItem(f"emotion {take['emotion']} in its name is not one of 01 to 08")
    return take


class RAVDESS(Corpus):
    """Clips with one emotion each."""

    name = "ravdess"
    kind = "clips"
    title = "RAVDESS: acted emotional speech, 8 emotions, 24 actors"
    citation = "Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song. PLoS ONE, 2018."
    licence = "CC BY-NC-SA 4.0"
    homepage = "https://zenodo.org/records/1188976"
    access = "Open: unpack the actors' archives from https://zenodo.org/records/1188976."
    layout = """
        [Actor_01/]01-01-03-01-01-01-01.mp4 (video) or [Actor_01/]03-01-03-01-01-01-01.wav (audio), at any depth
    """
    chunk = 4
    shuffle = False
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records, with RAVDESS's own eight emotions."""
        return clips_features(labels=EMOTIONS, image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every take of the modality once, with sound if it lies here with sound."""
        suffixes = video.SOUND_SUFFIXES if self.options.modality == "audio" else video.SUFFIXES
        wanted = MODALITIES[self.options.modality]
        keep = kept(self.options.classes)
        takes: dict[str, tuple[pathlib.Path, dict[str, str]]] = {}
        odd: list[pathlib.Path] = []
        others = twins = 0
        for path in self.files(self.source, suffixes):
            try:
                code = parse(path.stem)
            except BadItem:
                odd.append(path)
                continue
            if EMOTIONS[int(code["emotion"]) - 1] not in keep:
                continue
            if code["modality"] not in wanted:
                others += 1
                if self.options.modality in EXACT:
                    continue
            take = path.stem.split("-", 1)[1]
            twins += take in takes
            if take not in takes or self._rank(code) < self._rank(takes[take][1]):
                takes[take] = path, code
        if not takes:
            found = f"{len(odd)} files have other names, such as {odd[0].name}" if odd else "no such file was found"
            raise self.wrong_layout(f"{found} with --modality={self.options.modality}" if others else found)
        silent = sum(code["modality"] == "02" for _, code in takes.values())
        if twins:
            self.notes.append(f"{twins} files hold a take that is used from another file, with its sound if it has any")
        if silent:
            self.notes.append(f"{silent} of {len(takes)} takes are silent (02-)")
        place, known = self._splits([code for _, code in takes.values()])
        items = [
            # If the splits share speakers on purpose, the subject must not be checked: it is left empty.
            Item(path.stem, place(code), code["actor"] if known else "", {"path": str(path), **code})
            for _, (path, code) in sorted(takes.items())
        ]
        # A file with another name becomes an item that fails, so that it is counted and listed.
        items += [Item(shown(path.relative_to(self.source)), "train", "", {"path": str(path)}) for path in odd]
        return sorted(items, key=lambda item: (("train", "dev", "test").index(item.split), item.key))

    def _rank(self, code: Mapping[str, str]) -> int:
        wanted = MODALITIES[self.options.modality]
        return wanted.index(code["modality"]) if code["modality"] in wanted else len(wanted)

    def _splits(self, codes: Sequence[Mapping[str, str]]) -> tuple[Callable[[Mapping[str, str]], str], bool]:
        """Returns a function from a take's codes to its split, and whether no speaker is in two splits."""
        if self.options.split == "fold":
            place = functools.partial(fold_split, fold=self.options.fold)
            missing = {"train", "dev", "test"} - {place(code) for code in codes}
            if missing:
                raise UserError(
                    f"--fold={self.options.fold} leaves {', '.join(sorted(missing))} empty: --split=fold needs takes "
                    "of both sentences in both repetitions."
                )
            return place, False
        speakers = sorted({int(code["actor"]) for code in codes})
        apart = self.options.split == "speaker" or (self.options.split == "auto" and len(speakers) >= 3)
        if not apart:
            groups = sorted({take_group(code) for code in codes})
            # Dev gets every fourth group of an emotion, and starts at another group for each emotion, so that it has
            # both sentences and both intensities.
            split_of_group = {}
            for emotion in sorted({group[0] for group in groups}):
                same = [group for group in groups if group[0] == emotion]
                held_out = int(emotion) % min(4, len(same))
                for number, group in enumerate(same):
                    split_of_group[group] = "dev" if len(same) > 1 and number % 4 == held_out else "train"
            return (lambda code: split_of_group[take_group(code)]), False
        split_of_speaker = by_speaker(speakers, self.options.dev_speakers, self.options.test_speakers)
        return (lambda code: split_of_speaker[int(code["actor"])]), True

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one take's segments."""
        path = pathlib.Path(item.payload["path"])
        code = parse(path.stem)
        picture = path if self.options.modality != "audio" else None
        yield from clip_records(
            item.key,
            options=self.options,
            subject=code["actor"],
            picture=picture,
            sound=None if picture else path,
            label=int(code["emotion"]) - 1,
        )


def fold_split(code: Mapping[str, str], fold: int) -> str:
    """The split of a take in fold 1 to 4. Train and test share neither sentence nor repetition."""
    sentence, repetition = divmod(fold - 1, 2)
    shared = (int(code["statement"]) == sentence + 1) + (int(code["repetition"]) == repetition + 1)
    return ("train", "dev", "test")[shared]


def take_group(code: Mapping[str, str]) -> tuple[str, str, str, str]:
    """What the repetitions of a take share: emotion, intensity, sentence, actor."""
    return code["emotion"], code["intensity"], code["statement"], code["actor"]
