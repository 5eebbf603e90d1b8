"""Tiny data sets in the real record schemas, with a signal that can be learned: brightness is the label, loudness
the arousal."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from media import records
from media.images import encode_jpeg

SIZE = 80
shuffle.BUCKETS_NUMBER = 1  # by default the writer names a thousand temporary files, and uses none for so few records


def write(
    folder: pathlib.Path, name: str, features: tfds.features.FeaturesDict, splits: dict[str, list[dict[str, Any]]]
) -> str:
    """Writes records as a TFDS folder and returns its path."""

    class ToyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {split: enumerate(rows) for split, rows in splits.items()}

        def _generate_examples(self) -> None: ...

    ToyBuilder.name = name
    tfds.disable_progress_bar()
    ToyBuilder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder / name / "1.0.0")


def image(level: float, rng: np.random.Generator, size: int = SIZE) -> bytes:
    """A JPEG whose brightness is `level` in 0..1, with noise."""
    noise = rng.normal(0, 8, (size, size, 3))
    return encode_jpeg(np.clip(40 + 170 * level + noise, 0, 255).astype(np.uint8))


def faces(folder: pathlib.Path, train: int = 32, dev: int = 12, labelled: bool = True, name: str = "faces") -> str:
    """Faces of 8 classes by brightness."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> list[dict[str, Any]]:
        return [
            records.face_record(f"{name}{i}", image((i % 8) / 7, rng), label=i % 8 if labelled else -1)
            for i in range(count)
        ]

    return write(folder, name, records.faces_features(), {"train": rows(train), "dev": rows(dev)})


def triplets(folder: pathlib.Path, train: int = 16, dev: int = 6) -> str:
    """Triplets whose odd image differs in brightness."""
    rng = np.random.default_rng(1)

    def row(i: int) -> dict[str, Any]:
        odd = i % 3
        levels = [0.2 + 0.1 * rng.random()] * 3
        levels[odd] = 0.9
        return {
            "name": f"t{i}",
            "images": [records.jpeg(image(level, rng)) for level in levels],
            "odd": odd,
            "type": i % 3,
            "agreement": 1.0,
        }

    return write(
        folder,
        "triplets",
        records.triplets_features(),
        {"train": [row(i) for i in range(train)], "dev": [row(i) for i in range(dev)]},
    )


def clips(
    folder: pathlib.Path,
    train: int = 8,
    dev: int = 3,
    frames: int = 60,
    segments: int = 2,
    fps: float = 25.0,
    subject: Callable[[str, int], str] = "{}{}".format,
) -> str:
    """Recordings of `segments` segments: brightness follows valence, the level of the log-mel follows arousal."""
    rng = np.random.default_rng(2)

    def rows(count: int, split: str) -> list[dict[str, Any]]:
        out = []
        for n in range(count):
            total = frames * segments
            time = np.arange(total) / fps
            valence, arousal = (0.8 * np.sin(2 * np.pi * (time * rate + rng.random())) for rate in (0.4, 0.3))
            for segment in range(segments):
                part = slice(segment * frames, (segment + 1) * frames)
                v, a, t = valence[part], arousal[part], time[part]
                mask = np.ones(frames, bool)
                mask[5:10] = segment != 1
                mel_rows = int(frames / fps * 100) + 96
                level = np.interp(np.arange(mel_rows) / 100 - 0.48 + t[0], time, arousal)
                mel = (level[:, None] + rng.normal(0, 0.1, (mel_rows, 64))).astype(np.float32)
                record = {
                    "recording": f"{split}{n}",
                    "subject": subject(split, n),
                    "segment": segment,
                    "fps": fps,
                    "time": t.astype(np.float32),
                    "frames": [
                        records.jpeg(image((x + 1) / 2 if m else 0.0, rng)) for x, m in zip(v, mask, strict=True)
                    ],
                    "face_mask": mask,
                    "face_box": np.tile(np.array([0, 0, 1, 1], np.float32), (frames, 1)),
                    "face_confidence": mask.astype(np.float32),
                    "log_mel": mel,
                    "audio_index": np.round((t - t[0]) * 100).astype(np.int32),
                    "audio_mask": np.ones(frames, bool),
                    "targets": np.stack([v, a], -1).astype(np.float32),
                    "target_mask": np.ones(frames, bool),
                    "raters": np.full((frames, 1, 2), np.nan, np.float32),
                    "label": n % 8,
                }
                records.check_clip(record)
                out.append(record)
        return out

    return write(folder, "clips", records.clips_features(), {"train": rows(train, "train"), "dev": rows(dev, "dev")})
