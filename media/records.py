"""The schemas of the records, which are all that `data_prep` hands to `avemo`.

Each schema is a `tfds.features.FeaturesDict`. It is stored as `features.json` beside the shards, so a reader does not
need this package. Images are stored as JPEG (or, if asked for, WebP) bytes and decode to RGB.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from media.tf_example import ExampleEncoder

# The TFDS version, which names the data set's folder. Increase it when a field changes its name, type or meaning.
SCHEMA_VERSION = "1.0.0"

# `data_prep.synthetic` writes this file beside its corpora; its presence marks a corpus as synthetic.
SYNTHETIC_MANIFEST = "manifest.json"

# AffectNet's numbering 0-7, used for every corpus with expression labels.
CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

TRIPLET_TYPES = ("ONE_CLASS_TRIPLET", "TWO_CLASS_TRIPLET", "THREE_CLASS_TRIPLET")

# Most frames in one `clips` record: a minute at 25 fps, so that memory does not grow with the recording.
MAX_FRAMES = 1500


def _image(image_format: str = "jpeg") -> tfds.features.Image:
    # TFDS has no name for WebP; without a name it decodes by the bytes' own header.
    named = image_format if image_format == "jpeg" else None
    return tfds.features.Image(shape=(None, None, 3), encoding_format=named)


def _floats(*shape: int | None) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=np.float32)


def _flags() -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(None,), dtype=np.bool_)


def faces_features(classes: Sequence[str] = CLASSES, image_format: str = "jpeg") -> tfds.features.FeaturesDict:
    """Schema of single face images.

    Fields: name; image uint8 `[H, W, 3]`; label (-1 = unlabelled); votes float32 `[C]`, a distribution over the classes
    (one-hot for a hard label, zeros if unlabelled); valence and arousal float32 in [-1, 1] (NaN = unlabelled); subject.
    """
    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "image": _image(image_format),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "votes": _floats(len(classes)),
            "valence": tfds.features.Scalar(np.float32),
            "arousal": tfds.features.Scalar(np.float32),
            "subject": tfds.features.Text(),
        }
    )


def triplets_features(image_format: str = "jpeg") -> tfds.features.FeaturesDict:
    """Schema of similarity triplets.

    Fields: name; images, three of uint8 `[H, W, 3]`; odd int64, which of the three lies outside the similar pair; type
    (index into `TRIPLET_TYPES`); agreement float32, the share of annotators who chose `odd`.
    """
    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "images": tfds.features.Sequence(_image(image_format), length=3),
            "odd": tfds.features.Scalar(np.int64),
            "type": tfds.features.ClassLabel(names=list(TRIPLET_TYPES)),
            "agreement": tfds.features.Scalar(np.float32),
        }
    )


def clips_features(
    labels: Sequence[str] = CLASSES, num_raters: int = 0, image_format: str = "jpeg"
) -> tfds.features.FeaturesDict:
    """Schema of consecutive segments of recordings, at most `MAX_FRAMES` frames each.

    Fields, with T frames, M log-mel rows and R raters:
      recording, subject Text; segment int64, its number within the recording; fps float32.
      time float32 `[T]`: the frame's time in the recording, seconds.
      frames: T face crops uint8 `[S, S, 3]`, black without a face; face_mask bool `[T]`; face_box float32 `[T, 4]`
        (x0, y0, x1, y1 as fractions of the image); face_confidence float32 `[T]`.
      log_mel float32 `[M, 64]`: the rows that this segment needs, 100 per second; audio_index int32 `[T]`: first row of
        the frame's window of 96; audio_mask bool `[T]`: False without sound.
      targets float32 `[T, 2]`: valence and arousal, 0 where target_mask bool `[T]` is False.
      raters float32 `[T, max(R, 1), 2]`: NaN for an absent rater; for R = 0 one column of NaN, because the TFDS parser
        cannot read an empty axis back.
      label: emotion of the clip, -1 = none.
    """
    return tfds.features.FeaturesDict(
        {
            "recording": tfds.features.Text(),
            "subject": tfds.features.Text(),
            "segment": tfds.features.Scalar(np.int64),
            "fps": tfds.features.Scalar(np.float32),
            "time": _floats(None),
            "frames": tfds.features.Sequence(_image(image_format)),
            "face_mask": _flags(),
            "face_box": _floats(None, 4),
            "face_confidence": _floats(None),
            "log_mel": _floats(None, 64),
            "audio_index": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "audio_mask": _flags(),
            "targets": _floats(None, 2),
            "target_mask": _flags(),
            "raters": _floats(None, max(num_raters, 1), 2),
            "label": tfds.features.ClassLabel(names=list(labels)),
        }
    )


def extracted_features(
    visual_dim: int, audio_dim: int, labels: Sequence[str] = CLASSES, num_raters: int = 0
) -> tfds.features.FeaturesDict:
    """Schema of the per-frame features that `launch.py extract` writes, one record per recording.

    Fields: recording, subject, fps, time `[T]`, visual float32 `[T, Dv]`, visual_mask, audio float32 `[T, Da]`,
    audio_mask, targets `[T, 2]`, target_mask, raters `[T, max(R, 1), 2]`, label, all as in `clips_features`.
    """
    clips = clips_features(labels, num_raters)
    shared = ("recording", "subject", "fps", "time", "audio_mask", "targets", "target_mask", "raters", "label")
    return tfds.features.FeaturesDict(
        {
            **{name: clips[name] for name in shared},
            "visual": _floats(None, visual_dim),
            "visual_mask": _flags(),
            "audio": _floats(None, audio_dim),
        }
    )


def stream_features(
    dims: Mapping[str, int], labels: Sequence[str] = CLASSES, num_raters: int = 0
) -> tfds.features.FeaturesDict:
    """Schema of per-frame features of any named streams, one record per recording, from tables of others.

    Fields: those of `extracted_features`, but with NAME float32 `[T, D]` and NAME_mask bool `[T]` for every stream of
    `dims`, in order, and group: the recording's culture, session or the like, "" if unknown.
    """
    clips = clips_features(labels, num_raters)
    shared = ("recording", "subject", "fps", "time", "targets", "target_mask", "raters", "label")
    fields = {name: clips[name] for name in shared} | {"group": tfds.features.Text()}
    for name, dim in dims.items():
        fields |= {name: _floats(None, dim), f"{name}_mask": _flags()}
    return tfds.features.FeaturesDict(fields)


def jpeg(data: bytes) -> io.BytesIO:
    """Marks image bytes as encoded, so that TFDS stores them unchanged. TFDS reads the result once, to its end."""
    return io.BytesIO(data)


def votes_of(label: int, num_classes: int = len(CLASSES)) -> np.ndarray:
    """Returns a label as one-hot float32 `[C]`; zeros for -1."""
    votes = np.zeros(num_classes, np.float32)
    if label >= 0:
        votes[label] = 1
    return votes


def face_record(
    name: str,
    image: bytes,
    *,
    label: int = -1,
    votes: np.ndarray | None = None,
    valence: float = float("nan"),
    arousal: float = float("nan"),
    subject: str = "",
    num_classes: int = len(CLASSES),
) -> dict[str, Any]:
    """Builds a record of `faces_features` from JPEG or WebP bytes."""
    return {
        "name": name,
        "image": jpeg(image),
        "label": label,
        "votes": votes_of(label, num_classes) if votes is None else np.asarray(votes, np.float32),
        "valence": np.float32(valence),
        "arousal": np.float32(arousal),
        "subject": subject,
    }


def check_clip(record: Mapping[str, Any]) -> None:
    """Checks what `clips_features` cannot express: equal lengths, rising times, windows inside the log-mel rows.

    Raises:
      ValueError: names the recording and what is wrong. The fault is the builder's, not the user's data.
    """
    where = f"{record['recording']}[{record['segment']}]"
    count = len(record["time"])
    per_frame = ("frames", "face_mask", "face_box", "face_confidence", "audio_index", "audio_mask")
    for name in (*per_frame, "targets", "target_mask", "raters"):
        if len(record[name]) != count:
            raise ValueError(f"{where}: {name} has {len(record[name])} entries for {count} frames")
    if np.any(np.diff(record["time"]) <= 0):
        raise ValueError(f"{where}: the frame times do not rise")
    index = np.asarray(record["audio_index"])[np.asarray(record["audio_mask"], bool)]
    if index.size and (index.min() < 0 or index.max() + 96 > len(record["log_mel"])):
        raise ValueError(f"{where}: a window extends beyond the {len(record['log_mel'])} log-mel rows")


class Serializer:
    """Turns records into the bytes that TFDS stores, and back. Build it once per process."""

    def __init__(self, features: tfds.features.FeaturesDict):
        from tensorflow_datasets.core import example_parser

        self._features = features
        self._encoder = ExampleEncoder(features)
        self._parser = example_parser.ExampleParserNp(features.get_serialized_info())

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Serialises one record as a `tf.train.Example`; equal records give equal bytes in any process."""
        return self._encoder(record)

    def parse(self, data: bytes) -> dict[str, Any]:
        """Parses one record but leaves its images encoded."""
        return self._parser.parse_example(data)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Parses and decodes one record: images become uint8 `[H, W, 3]` RGB."""
        return self._features.decode_example_np(self._parser.parse_example(data))
