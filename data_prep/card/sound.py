"""A picture of a sample's sound for the card."""

import cv2
import numpy as np

from media.images import encode_jpeg

SIDE = 96
_ROWS = 96


def pictures(log_mel: np.ndarray | None) -> list[tuple[bytes, str]]:
    """Returns JPEG bytes and a caption of the middle 0.96 s; none if there is less sound.

    Args:
      log_mel: float32 `[rows, 64]` of a sample clip; None for a corpus without sound.
    """
    if log_mel is None or len(log_mel) < _ROWS:
        return []
    begin = (len(log_mel) - _ROWS) // 2
    return [(encode_jpeg(_heat(np.asarray(log_mel[begin : begin + _ROWS], np.float32))), "log-mel, 0.96 s")]


def _heat(window: np.ndarray) -> np.ndarray:
    """Draws log-mel float32 `[rows, bands]` as uint8 `[SIDE, SIDE, 3]`: time to the right, high bands at the top."""
    low, high = float(window.min()), float(window.max())
    shade = ((window.T[::-1] - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(shade, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return cv2.resize(colours, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
