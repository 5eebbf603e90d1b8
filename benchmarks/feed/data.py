"""The data of the benchmark, a `train` split alone: faces, triplets and clips as shards, and the same as plain files.

The faces are FER+'s, enlarged, if the archive is there; otherwise the synthetic corpus draws them. Sound and features
are noise: how fast they are read does not depend on what they say.
"""

import functools
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from data_prep.synthetic import stills
from media import records
from media.images import encode_jpeg

SIDE = 224  # of the stored faces, pixels: that of AffectNet's
FRAMES, FPS = 250, 25.0  # of a clip
FEATURES = 128  # of each modality, the paper's

Row = dict[str, Any]


def write(source: pathlib.Path, folder: pathlib.Path, faces: int, clips: int) -> dict[str, str]:
    """Writes everything, once.

    Args:
      source: folder with `ferplus/`, or anything else.
      folder: where to write.
      faces: number of faces.
      clips: number of clips and of recordings of features.

    Returns:
      Folders by kind: `faces`, which serve as `unlabelled` too, `triplets`, `clips`, `features`; and `files`, JPEGs
      and NumPy arrays.
    """
    done = folder / f"data-{faces}-{clips}.json"
    if done.exists():
        return json.loads(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(source, folder, faces)
    rng = np.random.default_rng(0)
    made = {
        "faces": _shards(folder, "faces", records.faces_features(), functools.partial(_faces, pictures)),
        "triplets": _shards(folder, "triplets", records.triplets_features(), functools.partial(_triplets, pictures)),
        "clips": _shards(folder, "clips", records.clips_features(), functools.partial(_clips, clips, rng)),
        "features": _shards(
            *(folder, "features", records.extracted_features(FEATURES, FEATURES)),
            functools.partial(_features, clips, rng),
        ),
        "files": _files(folder / "files", pictures, clips, rng),
    }
    made["unlabelled"] = made["faces"]
    done.write_text(json.dumps(made))
    return made


def _pictures(source: pathlib.Path, folder: pathlib.Path, count: int) -> list[bytes]:
    archive = source / "ferplus" / "FER2013Train.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as packed:
            names = sorted(name for name in packed.namelist() if name.endswith(".png"))
            encoded = [packed.read(names[number % len(names)]) for number in range(count)]
        small = (np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)) for data in encoded)
        large = (cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in small)
        return [encode_jpeg(picture) for picture in large]
    drawn = folder / "drawn"
    drawn.mkdir(exist_ok=True)
    stills.write_unlabelled(drawn, 0, 0, min(count, 512), SIDE)
    paths = sorted(drawn.rglob("*.jpg"))
    return [paths[number % len(paths)].read_bytes() for number in range(count)]


def _shards(folder: pathlib.Path, name: str, features: Any, rows: Callable[[], Iterator[Row]]) -> str:
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": enumerate(rows())}

        def _generate_examples(self) -> None: ...

    Builder.name = name
    tfds.disable_progress_bar()
    Builder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder / name / "1.0.0")


def _faces(pictures: list[bytes]) -> Iterator[Row]:
    for number, data in enumerate(pictures):
        yield records.face_record(f"face{number}", data, label=number % len(records.CLASSES))


def _triplets(pictures: list[bytes]) -> Iterator[Row]:
    for number in range(len(pictures) // 3):
        images = [records.jpeg(data) for data in pictures[3 * number : 3 * number + 3]]
        yield {"name": f"t{number}", "images": images, "odd": number % 3, "type": number % 3, "agreement": 1.0}


def _traces() -> Row:
    return {
        "time": (np.arange(FRAMES) / FPS).astype(np.float32),
        "audio_mask": np.ones(FRAMES, bool),
        "targets": np.zeros((FRAMES, 2), np.float32),
        "target_mask": np.ones(FRAMES, bool),
        "raters": np.full((FRAMES, 1, 2), np.nan, np.float32),
        "fps": FPS,
        "label": -1,
    }


def _log_mel(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(round(FRAMES / FPS * 100) + 96, 64)).astype(np.float32)


def _clips(count: int, rng: np.random.Generator) -> Iterator[Row]:
    face = encode_jpeg(np.full((140, 140, 3), 128, np.uint8))
    for number in range(count):
        yield {
            **_traces(),
            **{"recording": f"clip{number}", "subject": f"clip{number}", "segment": 0},
            "frames": [records.jpeg(face) for _ in range(FRAMES)],
            "face_mask": np.ones(FRAMES, bool),
            "face_box": np.tile(np.array([0, 0, 1, 1], np.float32), (FRAMES, 1)),
            "face_confidence": np.ones(FRAMES, np.float32),
            "log_mel": _log_mel(rng),
            "audio_index": np.arange(FRAMES, dtype=np.int32) * 4,
        }


def _features(count: int, rng: np.random.Generator) -> Iterator[Row]:
    for number in range(count):
        yield {
            **_traces(),
            **{"recording": f"clip{number}", "subject": f"clip{number}", "visual_mask": np.ones(FRAMES, bool)},
            **{name: rng.normal(size=(FRAMES, FEATURES)).astype(np.float32) for name in ("visual", "audio")},
        }


def _files(folder: pathlib.Path, pictures: list[bytes], clips: int, rng: np.random.Generator) -> str:
    """What a PyTorch user has: a folder of JPEGs, one of log-mels `[M, 64]`, one of features `[T, 256]`."""
    for name in ("faces", "log_mel", "features"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(pictures):
        (folder / "faces" / f"{number:06}.jpg").write_bytes(data)
    for number in range(clips):
        np.save(folder / "log_mel" / f"{number:06}.npy", _log_mel(rng))
        np.save(folder / "features" / f"{number:06}.npy", rng.normal(size=(FRAMES, 2 * FEATURES)).astype(np.float32))
    return str(folder)
