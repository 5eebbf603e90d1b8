"""Turns a prepared record into one example of a batch: `(record, generator or None, config) -> example`, in NumPy.

A random generator draws which part of the record a training example is. Evaluation passes None, so that the example
depends only on the record. Nothing is augmented here: that is part of the compiled step (`avemo.data.augment`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo.data.shards import Images
from media.images import resize

Example = dict[str, Any]
MEL_ROWS = 96  # rows of one VGGish window: 0.96 s at 100 Hz


def _face(images: Images, index: int, size: int, shrink: bool) -> np.ndarray:
    """One face of a record as uint8 `[size, size, 3]`; `shrink` lets the decoder shrink it on the way, for free."""
    return resize(images.decode(index, at_least=size if shrink else 0), size, quick=shrink)


def face_example(
    record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict, side: int = 0
) -> Example:
    """Example of a `faces` record: image uint8 `[S, S, 3]`, label int32, votes float32 `[C]`, valence, arousal.

    S is `side`, for training; 0 stands for the model's size.
    """
    return {
        "image": _face(record["image"], 0, side or config.model.image_size, bool(side)),
        "label": np.int32(record["label"]),
        "votes": record["votes"].astype(np.float32),
        "valence": np.float32(record["valence"]),
        "arousal": np.float32(record["arousal"]),
    }


def triplet_example(
    record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict, side: int = 0
) -> Example:
    """Example of a `triplets` record: images uint8 `[3, S, S, 3]` with the odd one last, type int32 (0..2).

    S is as for `face_example`.
    """
    odd, images = int(record["odd"]), record["images"]
    order = [i for i in range(3) if i != odd] + [odd]
    return {
        "images": np.stack([_face(images, i, side or config.model.image_size, bool(side)) for i in order]),
        "type": np.int32(record["type"]),
    }


def window_start(frames: int, hop: int, count: int, rng: np.random.Generator | None) -> int:
    """The first of `count` frames, `hop` apart, out of a clip's `frames`: drawn, or without a generator centred."""
    slack = max(0, frames - 1 - (count - 1) * hop)
    return int(rng.integers(0, slack + 1)) if rng is not None else slack // 2


def window_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Example:
    """Example of a `clips` record: log-mel windows spread over it, with the targets of their frames.

    N is `config.data.windows`; the windows start `config.data.window_hop` s apart. Training draws the first start.
    Evaluation centres them in the clip.

    Returns:
      windows float32 `[N, 96, 64]`, targets float32 `[N, 2]`, mask bool `[N]` (sound present), target_mask bool `[N]`
      (sound and target present), and the clip's label int32.
    """
    time, fps = record["time"], float(record["fps"])
    frames, count = len(time), config.data.windows
    hop = max(1, round(config.data.window_hop * fps))
    index = window_start(frames, hop, count, rng) + hop * np.arange(count)
    inside = index < frames
    index = np.minimum(index, frames - 1)
    rows = record["audio_index"][index]
    present = inside & record["audio_mask"][index]
    windows = np.zeros((count, MEL_ROWS, record["log_mel"].shape[1]), np.float32)
    for i, (row, ok) in enumerate(zip(rows, present, strict=True)):
        if ok:
            windows[i] = record["log_mel"][row : row + MEL_ROWS]
    targets, target_mask = delayed_targets(record["targets"], record["target_mask"], config.data.delay, fps)
    return {
        "windows": windows,
        "targets": np.where(target_mask[index, None], targets[index], np.float32(0)),
        "mask": present,
        "target_mask": present & target_mask[index],
        "label": np.int32(record["label"]),
    }


def delayed_targets(targets: np.ndarray, mask: np.ndarray, delay: float, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Moves labels earlier by the raters' reaction delay: frame t gets the label annotated at t + delay.

    Args:
      targets: float32 `[T, 2]`.
      mask: bool `[T]`.
      delay: in s, ≥ 0.
      fps: frame rate in Hz.

    Returns:
      targets `[T, 2]` and mask `[T]`. The last `delay` seconds have no label and are masked.
    """
    shift = round(delay * fps)
    if shift <= 0:
        return targets, mask
    shift = min(shift, len(mask))
    moved, kept = np.zeros_like(targets), np.zeros_like(mask)
    moved[: len(mask) - shift], kept[: len(mask) - shift] = targets[shift:], mask[shift:]
    return moved, kept
