"""Turns a prepared record into one example of a batch: `(record, generator or None, config) -> example`, in NumPy.

Training passes a random generator, which augments the example. Evaluation passes None, so the example depends only on
the record.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo.data.shards import Images
from media import augment
from media.images import resize

Example = dict[str, Any]
MEL_ROWS = 96  # rows of one VGGish window: 0.96 s at 100 Hz


def _face(images: Images, index: int, rng: np.random.Generator | None, config: ConfigDict) -> np.ndarray:
    """One face of a record at the model's size, augmented if a generator is given."""
    size = config.model.image_size
    if rng is None:
        return resize(images.decode(index), size)
    # The decoder halves for free an image that would be shrunk anyway. A crop keeps at least 1 - crop of the side.
    strength = config.data.augment
    image = images.decode(index, at_least=round(size / (1 - strength.crop)))
    return augment.face(image, rng, strength, size)


def face_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Example:
    """Example of a `faces` record: image uint8 `[S, S, 3]`, label int32, votes float32 `[C]`, valence, arousal."""
    return {
        "image": _face(record["image"], 0, rng, config),
        "label": np.int32(record["label"]),
        "votes": record["votes"].astype(np.float32),
        "valence": np.float32(record["valence"]),
        "arousal": np.float32(record["arousal"]),
    }


def triplet_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Example:
    """Example of a `triplets` record: images uint8 `[3, S, S, 3]` with the odd one last, type int32 (0..2)."""
    odd = int(record["odd"])
    order = [i for i in range(3) if i != odd] + [odd]
    images = record["images"]
    return {
        "images": np.stack([_face(images, i, rng, config) for i in order]),
        "type": np.int32(record["type"]),
    }


def window_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Example:
    """Example of a `clips` record: log-mel windows spread over it, with the targets of their frames.

    N is `config.data.windows`; the windows start `config.data.window_hop` s apart. Training draws the first start, then
    shifts the windows over bands and masks them (`config.data.augment.{spec_shift, spec_time, spec_freq}`). Evaluation
    centres them in the clip and leaves them unchanged.

    Returns:
      windows float32 `[N, 96, 64]`, targets float32 `[N, 2]`, mask bool `[N]` (sound present), target_mask bool `[N]`
      (sound and target present), and the clip's label int32.
    """
    time, fps = record["time"], float(record["fps"])
    frames, count = len(time), config.data.windows
    hop = max(1, round(config.data.window_hop * fps))
    slack = max(0, frames - 1 - (count - 1) * hop)
    start = int(rng.integers(0, slack + 1)) if rng is not None else slack // 2
    index = start + hop * np.arange(count)
    inside = index < frames
    index = np.minimum(index, frames - 1)
    rows = record["audio_index"][index]
    present = inside & record["audio_mask"][index]
    windows = np.zeros((count, MEL_ROWS, record["log_mel"].shape[1]), np.float32)
    for i, (row, ok) in enumerate(zip(rows, present, strict=True)):
        if ok:
            windows[i] = record["log_mel"][row : row + MEL_ROWS]
    if rng is not None:
        strength = config.data.get("augment", {})
        windows = augment.shift_bands(windows, rng, strength.get("spec_shift", 0))
        windows = augment.spec_augment(windows, rng, strength.get("spec_time", 0), strength.get("spec_freq", 0))
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
