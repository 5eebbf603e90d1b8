"""Shows what training may do to the records: one record of the data set under each augmentation."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from media import augment
from media.images import decode, encode_jpeg, resize

SIDE = 96
# Strong enough to be visible; a run takes its strengths from its config.
_FACES: dict[str, dict[str, Any]] = {
    "crop 0.3": {"crop": 0.3},
    "flip": {"flip": True},
    "colour 0.4": {"colour": 0.4},
    "erase": {"erase": 1.0},
}
_MAGNITUDE = 0.6
_ROWS, _MASKS = 96, {"time": 32, "freq": 16}


def pictures(face: bytes | None, log_mel: np.ndarray | None) -> list[tuple[bytes, str]]:
    """Returns (JPEG bytes, caption) pairs.

    Args:
      face: a sample crop, encoded; None if there is none.
      log_mel: float32 `[rows, 64]` of a sample clip; None for a corpus without sound.
    """
    shown = []
    if face is not None:
        image = resize(decode(face, "sample"), SIDE)
        shown.append((image, "as stored"))
        shown += [(_changed(image, strength), name) for name, strength in _FACES.items()]
        shown += [
            (operation(image, _MAGNITUDE), f"RandAugment: {name.replace('_', ' ')}")
            for name, operation in augment.OPERATIONS.items()
            if name != "identity"
        ]
    if log_mel is not None and len(log_mel) >= _ROWS:
        begin = (len(log_mel) - _ROWS) // 2
        window = np.asarray(log_mel[begin : begin + _ROWS], np.float32)
        masked = augment.spec_augment(window[None], np.random.default_rng(7), **_MASKS)[0]
        low, high = float(window.min()), float(window.max())
        shown += [
            (_heat(window, low, high), "log-mel, 0.96 s"),
            (_heat(masked, low, high), "SpecAugment 32 rows, 16 bands"),
        ]
    return [(encode_jpeg(image), caption) for image, caption in shown]


def _changed(image: np.ndarray, strength: Mapping[str, Any]) -> np.ndarray:
    """Returns the draw that changes the image most, out of eight with fixed seeds."""
    drawn = (augment.face(image, np.random.default_rng(seed), strength, len(image)) for seed in range(8))
    return max(drawn, key=lambda one: float(np.abs(one.astype(np.float32) - image).mean()))


def _heat(window: np.ndarray, low: float, high: float) -> np.ndarray:
    """Draws log-mel float32 `[rows, bands]` as uint8 `[SIDE, SIDE, 3]`: time to the right, high bands at the top."""
    shade = ((window.T[::-1] - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(shade, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return cv2.resize(colours, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
