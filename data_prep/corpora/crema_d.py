"""CREMA-D (Cao et al. 2014): 91 actors speak twelve sentences in six emotions."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep.clips import ClipOptions, clip_records
from data_prep.corpora.base import Corpus, Item
from data_prep.corpora.speakers import by_speaker, numbers
from media import video
from media.errors import BadItem, UserError
from media.records import CLASSES, clips_features

EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}


@dataclasses.dataclass(frozen=True)
class Options(ClipOptions):
    """Options of CREMA-D, besides those of clips and faces.

    modality: "video" (VideoFlash with the sound of AudioWAV) or "audio" (AudioWAV alone). dev_speakers, test_speakers:
    numbers such as 1090,1091; by default the last sixth of the actors is dev and nobody is test.
    """

    modality: str = "video"
    dev_speakers: str = ""
    test_speakers: str = ""

    def check(self) -> None:
        """Raises a `UserError` if a value cannot work."""
        super().check()
        if self.modality not in ("video", "audio"):
            raise UserError(f"--modality is video or audio, not {self.modality!r}.")
        for flag in ("dev_speakers", "test_speakers"):
            numbers(getattr(self, flag), flag)


class CremaD(Corpus):
    """Clips labelled with the emotion that the actor was asked to show, split by actor."""

    name = "crema_d"
    kind = "clips"
    title = "CREMA-D: acted sentences, 6 emotions, 91 actors"
    citation = (
        "Cao, Cooper, Keutmann, Gur, Nenkova, Verma: CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset. "
        "IEEE Transactions on Affective Computing, 2014."
    )
    licence = "Open Database License"
    homepage = "https://github.com/CheyneyComputerScience/CREMA-D"
    access = "Open: clone the repository at the homepage with Git LFS; VideoFlash and AudioWAV are needed."
    layout = "VideoFlash/1001_DFA_ANG_XX.flv and AudioWAV/1001_DFA_ANG_XX.wav"
    chunk = 4
    shuffle = False
    Options = Options

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records, with the canonical classes, of which six occur."""
        return clips_features(labels=CLASSES, image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Lists every clip of the modality."""
        videos, sounds = self.source / "VideoFlash", self.source / "AudioWAV"
        wanted = videos if self.options.modality == "video" else sounds
        suffixes = video.SUFFIXES if self.options.modality == "video" else video.SOUND_SUFFIXES
        paths = self.files(wanted, suffixes) if wanted.is_dir() else []
        actors = sorted({actor for path in paths if (actor := _actor(path.stem)) is not None})
        if not actors:
            raise self.wrong_layout(f"no clip in {wanted.name}")
        split_of = by_speaker(actors, self.options.dev_speakers, self.options.test_speakers)
        items = []
        for path in paths:
            actor = _actor(path.stem)
            sound = sounds / f"{path.stem}.wav" if self.options.modality == "video" else path
            payload = {
                "video": str(path) if self.options.modality == "video" else "",
                # A clip without a separate sound file is heard through its own track.
                "sound": str(sound) if sound.is_file() else "",
            }
            # A clip without an actor's number is an item that fails, so that it is counted and listed.
            split, subject = ("train", "") if actor is None else (split_of[actor], str(actor))
            items.append(Item(path.stem, split, subject, payload))
        return sorted(items, key=lambda item: (("train", "dev", "test").index(item.split), item.key))

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one clip's segments."""
        codes = item.key.split("_")
        if len(codes) < 4 or codes[2] not in EMOTIONS:
            raise BadItem("its name is not of the form 1001_DFA_ANG_XX")
        picture, sound = item.payload["video"], item.payload["sound"]
        yield from clip_records(
            item.key,
            options=self.options,
            subject=item.subject,
            picture=pathlib.Path(picture) if picture else None,
            sound=pathlib.Path(sound) if sound else None,
            label=CLASSES.index(EMOTIONS[codes[2]]),
        )


def _actor(stem: str) -> int | None:
    """The actor's number in a clip's name, or None if it has none."""
    first = stem.split("_")[0]
    return int(first) if first.isdigit() and len(first) == 4 else None
