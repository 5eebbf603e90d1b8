"""RAVDESS (Livingstone & Russo 2018): actors speaking two sentences in eight emotions, as videos or as sound."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.clips import ClipOptions, clip_records
from data_prep.corpora.base import Corpus, Item, listing
from data_prep.corpora.speakers import by_speaker, numbers
from media import video
from media.errors import BadItem, UserError
from media.records import clips_features

# RAVDESS's own list, in its own order (codes 01 to 08): calm is a class here.
EMOTIONS = ("neutral", "calm", "happy", "sad", "anger", "fear", "disgust", "surprise")
MODALITIES = {"01": "audio-video", "02": "video", "03": "audio"}


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of RAVDESS beside those of clips and faces.

    modality: "video" (files with a picture) or "audio" (sound alone: regular frame times, no face). split: "speaker"
    (no speaker is in two splits), "take" (for a single speaker: every repetition of the same sentence, emotion and
    intensity stays in one split) or "fold" (for few speakers: test holds one sentence in one repetition, train the
    other sentence in the other repetition, dev the rest, which shares one of the two with either); "auto" = by speaker
    where there are at least three. fold: 1 to 4, of "fold": sentence and repetition 1 and 1, 1 and 2, 2 and 1, 2 and 2.
    dev_speakers, test_speakers: numbers such as 11,12; empty = about a sixth of them for dev and none for test.
    classes: "all", or names to keep.
    """

    modality: str = "video"
    split: str = "auto"
    fold: int = 0
    dev_speakers: str = ""
    test_speakers: str = ""
    classes: str = "all"

    def check(self) -> None:
        """Raises a `UserError` for values that cannot work."""
        super().check()
        if self.modality not in ("video", "audio"):
            raise UserError(f"--modality is video or audio, not {self.modality!r}.")
        if self.split not in ("auto", "speaker", "take", "fold"):
            raise UserError(f"--split is auto, speaker, take or fold, not {self.split!r}.")
        if (self.split == "fold") != (self.fold in (1, 2, 3, 4)):
            raise UserError(f"--split=fold takes --fold=1 to 4, and no other split does; --fold is {self.fold}.")
        for flag in ("dev_speakers", "test_speakers"):
            numbers(getattr(self, flag), flag)
        for name in kept(self.classes):
            if name not in EMOTIONS:
                raise UserError(f"--classes={name}: known are {', '.join(EMOTIONS)}.")


def kept(classes: str) -> list[str]:
    """The emotions that `--classes` keeps."""
    return list(EMOTIONS) if classes == "all" else [name.strip() for name in classes.split(",") if name.strip()]


def parse(stem: str) -> dict[str, str]:
    """The seven codes of a file's name, `MM-VV-EE-II-SS-RR-NN`.

    Raises:
      BadItem: the name is not of that form, or its emotion is none of the eight.
    """
    parts = stem.split("-")
    if len(parts) != 7 or not all(part.isdigit() and len(part) == 2 for part in parts):
        raise BadItem("its name is not of the form MM-VV-EE-II-SS-RR-NN")
    code = dict(
        zip(("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor"), parts, strict=True)
    )
    if not 1 <= int(code["emotion"]) <= len(EMOTIONS):
        raise BadItem(f"emotion {code['emotion']} is none of 01 to 08")
    return code


class RAVDESS(Corpus):
    """Clips of one emotion each."""

    name = "ravdess"
    kind = "clips"
    title = "RAVDESS: acted emotional speech, 8 emotions, 24 actors"
    citation = "Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song. PLoS ONE, 2018."
    licence = "CC BY-NC-SA 4.0"
    homepage = "https://zenodo.org/records/1188976"
    access = "Open: the archives of the actors at https://zenodo.org/records/1188976, unpacked."
    layout = """
        [Actor_01/]01-01-03-01-01-01-01.mp4 (video) or [Actor_01/]03-01-03-01-01-01-01.wav (audio), at any depth
    """
    chunk = 4
    shuffle = False
    Options = Options

    def features(self):
        """Schema of the records: RAVDESS's own eight emotions."""
        return clips_features(labels=EMOTIONS, image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Every take of the modality, each once."""
        suffixes = video.SUFFIXES if self.options.modality == "video" else video.SOUND_SUFFIXES
        keep, takes, odd = kept(self.options.classes), {}, []
        for path in listing(self.source, suffixes):
            try:
                code = parse(path.stem)
            except BadItem:
                odd.append(path)
                continue
            if EMOTIONS[int(code["emotion"]) - 1] in keep:
                takes.setdefault(path.stem, (path, code))
        if not takes:
            found = f"{len(odd)} files have other names, such as {odd[0].name}" if odd else "no such file"
            raise self.wrong_layout(found)
        place, known = self._splits([code for _, code in takes.values()])
        items = [
            # Where speakers are shared on purpose, the subject cannot be what keeps the splits apart.
            Item(stem, place(code), code["actor"] if known else "", {"path": str(path), **code})
            for stem, (path, code) in sorted(takes.items())
        ]
        # A file with another name is an item that fails, so that it is counted and listed.
        items += [Item(str(path.relative_to(self.source)), "train", "", {"path": str(path)}) for path in odd]
        return sorted(items, key=lambda item: (("train", "dev", "test").index(item.split), item.key))

    def _splits(self, codes: Sequence[Mapping[str, str]]) -> tuple[Any, bool]:
        """A function from a take's codes to its split, and whether that keeps the speakers apart."""
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
            # One group in four of each emotion, another one for each, so that dev has both sentences and intensities.
            home = {}
            for emotion in sorted({group[0] for group in groups}):
                same = [group for group in groups if group[0] == emotion]
                held_out = int(emotion) % min(4, len(same))
                for number, group in enumerate(same):
                    home[group] = "dev" if len(same) > 1 and number % 4 == held_out else "train"
            return (lambda code: home[take_group(code)]), False
        home = by_speaker(speakers, self.options.dev_speakers, self.options.test_speakers)
        return (lambda code: home[int(code["actor"])]), True

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """One take's segments."""
        path = pathlib.Path(item.payload["path"])
        code = parse(path.stem)
        picture = path if self.options.modality == "video" else None
        yield from clip_records(
            item.key,
            options=self.options,
            subject=code["actor"],
            picture=picture,
            sound=None if picture else path,
            label=int(code["emotion"]) - 1,
        )


def fold_split(code: Mapping[str, str], fold: int) -> str:
    """The split of a take in fold 1 to 4: what is trained on shares neither sentence nor repetition with the test."""
    sentence, repetition = divmod(fold - 1, 2)
    shared = (int(code["statement"]) == sentence + 1) + (int(code["repetition"]) == repetition + 1)
    return ("train", "dev", "test")[shared]


def take_group(code: Mapping[str, str]) -> tuple[str, str, str, str]:
    """What the repetitions of a take share: emotion, intensity, sentence, actor."""
    return code["emotion"], code["intensity"], code["statement"], code["actor"]
