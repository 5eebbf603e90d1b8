"""Aff-Wild2 (Kollias & Zafeiriou 2019), the valence-arousal track: videos from the web, annotated per frame.

The faces are the published crops (`cropped_aligned`). The sound comes from the videos, if they are present.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import annotations, coverage, stills, tables
from data_prep.clips import Annotation, ClipOptions, segment_records
from data_prep.corpora.base import Corpus, Item
from media import audio, video
from media.errors import BadItem
from media.faces import FaceFrame
from media.images import encode_image
from media.records import clips_features

SETS = (("Train_Set", "train"), ("Validation_Set", "dev"))
SKIP = -5.0  # marks a frame without annotation
SIDES = ("_left", "_right")  # a second face of the same video
DEFAULT_FPS = 30.0


class AffWild2(Corpus):
    """Videos of one person each, with valence and arousal for every frame."""

    name = "aff_wild2"
    kind = "clips"
    title = "Aff-Wild2, valence-arousal track"
    citation = (
        "Kollias, Zafeiriou: Expression, Affect, Action Unit Recognition: Aff-Wild2, Multi-Task Learning and ArcFace. "
        "BMVC 2019."
    )
    licence = "on request, research only"
    homepage = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
    access = (
        "Ask at https://ibug.doc.ic.ac.uk/resources/aff-wild2/ (a person with a permanent position signs an end user "
        "licence agreement); the link to the files comes by mail."
    )
    layout = """
        VA_Estimation_Challenge/{Train_Set,Validation_Set}/<video>.txt, cropped_aligned/<video>/00001.jpg,
        and the videos, in any folder, for their sound and frame rate
    """
    chunk = 1
    shuffle = False
    Options = ClipOptions

    def features(self) -> tfds.features.FeaturesDict:
        """Schema of the records."""
        return clips_features(image_format=self.options.image_format)

    def items(self) -> Sequence[Item]:
        """Every annotated video."""
        tables = [
            (path, split)
            for folder, split in SETS
            for base in (self.source / "VA_Estimation_Challenge", self.source)
            if (base / folder).is_dir()
            for path in self.files(base / folder, (".txt",), recursive=False)
        ]
        if not tables:
            raise self.wrong_layout("VA_Estimation_Challenge/Train_Set is missing or empty")
        # cropped_aligned is skipped because it holds millions of files.
        videos = {
            path.stem: str(path)
            for folder in sorted(self.source.iterdir())
            if folder.is_dir() and folder.name != "cropped_aligned"
            for path in self.files(folder, video.SUFFIXES)
        }
        return [
            Item(path.stem, split, path.stem, {"table": str(path), "video": videos.get(_video_of(path.stem), "")})
            for path, split in tables
        ]

    def sources(self, item: Item) -> Iterator[str]:
        """The table, the video and the folder of crops."""
        yield from super().sources(item)
        yield str(self.source / "cropped_aligned" / item.key)

    def process(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yields one video's segments. A frame without a crop is black and masked but keeps its time and label."""
        targets = read_table(pathlib.Path(item.payload["table"]))
        crops = self.source / "cropped_aligned" / item.key
        if not crops.is_dir():
            raise BadItem(f"its crops are missing: cropped_aligned/{item.key}")
        present = {path.stem: path for path in self.files(crops, video.IMAGE_SUFFIXES, recursive=False)}
        last = max((int(stem) for stem in present if stem.isdigit()), default=0)
        flags = coverage.check_rows(len(targets), last, "frames up to the last crop") if last > len(targets) else []
        source, rate, heard = item.payload["video"], DEFAULT_FPS, audio.NO_SOUND
        if source:
            stream = video.probe(source)
            rate, heard = stream.fps, audio.load(source).shifted(-stream.start)
            flags += coverage.check_rows(len(targets), len(coverage.frame_times(source)), "frames of the video")
        time = np.arange(len(targets)) / rate
        options = dataclasses.replace(self.options, fps=0.0)
        yield from segment_records(
            item.key,
            self._faces(time, present),
            heard,
            rate,
            options,
            subject=item.subject,
            annotate=lambda at: _at(time, targets, at),
            flags=sorted(set(flags)),
        )

    def _faces(self, time: np.ndarray, present: dict[str, pathlib.Path]) -> Iterator[FaceFrame]:
        size, form = self.options.crop_size, self.options.image_format
        black = encode_image(np.zeros((size, size, 3), np.uint8), form)
        for number, seconds in enumerate(time, start=1):
            path = present.get(f"{number:05d}")
            data = stills.read_encoded(path, size, form, self.options.max_megapixels) if path else black
            # The crops are published without their place in the picture.
            yield FaceFrame(float(seconds), data, path is not None, (0.0, 0.0, 0.0, 0.0), float(path is not None))


def read_table(path: pathlib.Path) -> np.ndarray:
    """Reads `<video>.txt`: `valence,arousal` per frame, after a header if there is one.

    Returns:
      float64 `[T, 2]`, NaN in place of -5.

    Raises:
      BadItem: the file is missing or empty, or a line is not two numbers.
    """
    try:
        lines = tables.decode(path.read_bytes())[0].splitlines()
    except OSError as error:
        raise BadItem(f"annotation {path.name} is missing or unreadable") from error
    except tables.TableError as error:
        raise BadItem(f"annotation {path.name}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            valence, arousal = (float(cell) for cell in line.split(","))
        except ValueError as error:
            if number == 1 and "valence" in line.lower():
                continue
            raise BadItem(f"annotation {path.name}, line {number}: {line!r} is not `valence,arousal`") from error
        rows.append((valence, arousal))
    if not rows:
        raise BadItem(f"annotation {path.name} is empty")
    table = np.array(rows, np.float64)
    table[(table == SKIP).any(axis=1)] = np.nan
    return table


def _at(time: np.ndarray, targets: np.ndarray, at: np.ndarray) -> Annotation:
    values = annotations.resample(time, targets, at)
    return Annotation(values, np.full((len(at), 1, 2), np.nan))


def _video_of(stem: str) -> str:
    """The name of the video to which a table belongs. The second face of a video has a separate table."""
    for side in SIDES:
        stem = stem.removesuffix(side)
    return stem
