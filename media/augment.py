"""Augmentations: pure functions of an image (or log-mel windows) and a random generator. Strength 0 switches one off.

They use NumPy and OpenCV only, because the input pipeline runs them on the host and the data set card draws them.
Every strength is a share (0 to 1) of the operation's full effect, except for SpecAugment's, which count rows and bands.
"""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from media.errors import UserError
from media.images import resize

ERASED_AREA = (0.02, 0.33)  # share of the image, and height over width: Zhong et al. 2017, arXiv 1708.04896
ERASED_ASPECT = (0.3, 1 / 0.3)
_LEVELS = np.arange(256.0)
_GREY = (128, 128, 128)  # fills what geometry moves in from outside, as in the RandAugment authors' code


def check(strength: Mapping[str, Any]) -> None:
    """Raises a `UserError` for a strength (`data.augment.*`) outside its range."""
    for name, value in strength.items():
        whole = name in ("operations", "spec_time", "spec_freq", "spec_shift")
        if value < 0 or (not whole and value > 1) or (name == "crop" and value == 1):
            allowed = "a number from 0" if whole else "a share from 0 to " + ("below 1" if name == "crop" else "1")
            raise UserError(f"data.augment.{name} is {value}: it must be {allowed}.")


def crop(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Crops uint8 `[H, W, 3]` at random (a view), shortening both sides by the same share, up to `strength`."""
    height, width = image.shape[:2]
    scale = 1 - strength * rng.random()
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    return image[y : y + h, x : x + w]


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors uint8 `[H, W, 3]` left to right with probability 1/2."""
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def colour(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Applies a random gain (1 ± `strength`) and offset (± `strength`/2 of the range) to uint8 `[H, W, 3]`."""
    gain, bias = 1 + strength * rng.uniform(-1, 1), 255 * strength * rng.uniform(-0.5, 0.5)
    return cv2.LUT(image, _table(_LEVELS * gain + bias))


def erase(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Random erasing (arXiv 1708.04896): fills a rectangle of `ERASED_AREA` and `ERASED_ASPECT` with noise.

    Args:
      image: uint8 `[H, W, 3]`.
      rng: the generator.
      probability: of erasing anything, 0 to 1.
    """
    if rng.random() >= probability:
        return image
    height, width = image.shape[:2]
    for _ in range(10):  # a long rectangle may not fit: draw again, and give up after ten
        area = height * width * rng.uniform(*ERASED_AREA)
        aspect = np.exp(rng.uniform(*np.log(ERASED_ASPECT)))
        h, w = int(np.sqrt(area * aspect)), int(np.sqrt(area / aspect))
        if 0 < h <= height and 0 < w <= width:
            y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            image = image.copy()
            image[y : y + h, x : x + w] = rng.integers(0, 256, (h, w, image.shape[2]), np.uint8)
            break
    return image


def _table(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _affine(image: np.ndarray, matrix: Any) -> np.ndarray:
    """Applies a 2×3 matrix about the centre of the image."""
    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.asarray(matrix, np.float64)
    matrix[:, 2] += centre - matrix[:, :2] @ centre
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=_GREY)


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _affine(image, [[cos, sin, 0], [-sin, cos, 0]])


def _blend(other: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """Blends: `other` at factor 0, `image` at 1, extrapolated above 1."""
    return cv2.addWeighted(image, factor, other, 1 - factor, 0)


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return _blend(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), image, factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = round(float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()))
    return cv2.LUT(image, _table(mean + factor * (np.arange(256) - mean)))


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return _blend(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), image, factor)


def _auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to the whole range."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    spread = np.where(high > low, high - low, 1)
    steps = np.arange(256, dtype=np.float32)[:, None]
    return cv2.LUT(image, np.where(high > low, _table((steps - low) * 255 / spread), steps).astype(np.uint8)[None])


def _equalise(image: np.ndarray) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])


def _posterise(image: np.ndarray, m: float) -> np.ndarray:
    drop = round(4 * m)  # bits
    return cv2.LUT(image, (np.arange(256) >> drop << drop).astype(np.uint8))


def _solarise(image: np.ndarray, m: float) -> np.ndarray:
    values = np.arange(256)
    return cv2.LUT(image, np.where(values > 255 * (1 - m), 255 - values, values).astype(np.uint8))


# The fourteen operations of RandAugment (arXiv 1909.13719, section 3.1) as functions of (image, m) with m in -1 to 1:
# |m| is the magnitude, the sign is drawn. As there, the largest values are AutoAugment's (arXiv 1805.09501, table 6).
OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": lambda image, m: image,
    "auto_contrast": lambda image, m: _auto_contrast(image),
    "equalise": lambda image, m: _equalise(image),
    "rotate": lambda image, m: _rotate(image, 30 * m),
    "solarise": lambda image, m: _solarise(image, abs(m)),
    "saturation": lambda image, m: _saturation(image, 1 + 0.9 * m),
    "posterise": lambda image, m: _posterise(image, abs(m)),
    "contrast": lambda image, m: _contrast(image, 1 + 0.9 * m),
    "brightness": lambda image, m: cv2.LUT(image, _table(np.arange(256) * (1 + 0.9 * m))),
    "sharpness": lambda image, m: _sharpness(image, 1 + 0.9 * m),
    "shear_x": lambda image, m: _affine(image, [[1, 0.3 * m, 0], [0, 1, 0]]),
    "shear_y": lambda image, m: _affine(image, [[1, 0, 0], [0.3 * m, 1, 0]]),
    "translate_x": lambda image, m: _affine(image, [[1, 0, 150 / 331 * m * image.shape[1]], [0, 1, 0]]),
    "translate_y": lambda image, m: _affine(image, [[1, 0, 0], [0, 1, 150 / 331 * m * image.shape[0]]]),
}


def rand_augment(image: np.ndarray, rng: np.random.Generator, operations: int, magnitude: float) -> np.ndarray:
    """RandAugment (arXiv 1909.13719): applies randomly drawn `OPERATIONS` one after another, all at one magnitude.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      rng: the generator.
      operations: how many, the paper's N.
      magnitude: 0 to 1, for the paper's M of 0 to 10.

    Returns:
      uint8 `[H, W, 3]`.
    """
    names = list(OPERATIONS)
    for _ in range(operations):
        operation = OPERATIONS[names[rng.integers(len(names))]]
        image = operation(image, magnitude if rng.random() < 0.5 else -magnitude)
    return image


def face(image: np.ndarray, rng: np.random.Generator, strength: Mapping[str, Any], size: int) -> np.ndarray:
    """Applies all augmentations of a config to one face.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      rng: the example's generator.
      strength: `crop`, `flip` (bool), `colour`, `operations` and `magnitude` (RandAugment), `erase`; absent = off.
      size: side S of the result, pixels.

    Returns:
      uint8 `[S, S, 3]`, contiguous. Cropping comes first so that the costly operations run at the final size; erasing
      comes last so that its noise is not transformed.
    """
    image = resize(crop(image, rng, strength.get("crop", 0.0)), size)
    if strength.get("flip"):
        image = flip(image, rng)
    if strength.get("colour"):
        image = colour(image, rng, strength["colour"])
    if strength.get("operations"):
        image = rand_augment(image, rng, strength["operations"], strength.get("magnitude", 0.0))
    if strength.get("erase"):
        image = erase(image, rng, strength["erase"])
    return np.ascontiguousarray(image)


def shift_bands(windows: np.ndarray, rng: np.random.Generator, widest: int) -> np.ndarray:
    """Shifts a clip's log-mel windows up or down by some bands, imitating another vocal tract length and pitch.

    Vocal tract length perturbation (Jaitly & Hinton 2013) warps the frequency axis; this shifts it. All windows of a
    clip move together because they have one speaker.

    Args:
      windows: float32 `[N, rows, bands]`.
      rng: the generator.
      widest: largest shift in bands; the shift is a uniform integer in -widest … widest.

    Returns:
      float32 `[N, rows, bands]`; the edge band is repeated to fill the gap.
    """
    if not widest:
        return windows
    bands = np.arange(windows.shape[-1]) - rng.integers(-widest, widest + 1)
    return windows[..., np.clip(bands, 0, windows.shape[-1] - 1)]


def spec_augment(windows: np.ndarray, rng: np.random.Generator, time: int, freq: int) -> np.ndarray:
    """SpecAugment (arXiv 1904.08779) without time warping, which its authors found to matter least.

    Args:
      windows: float32 `[N, rows, bands]` log-mel; each gets one mask along time and one along frequency.
      rng: the generator.
      time: T, the largest width of a time mask in rows; the width is uniform in 0 … T.
      freq: F, the same in bands.

    Returns:
      float32 `[N, rows, bands]`, masked with each window's mean. A window without sound (zeros) stays as it is.
    """
    if not (time or freq):
        return windows
    out = windows.copy()
    for window, masked in zip(windows, out, strict=True):
        mean = window.mean()
        for axis, widest in ((0, time), (1, freq)):
            length = window.shape[axis]
            width = rng.integers(0, min(widest, length) + 1)
            start = rng.integers(0, length - width + 1)
            np.moveaxis(masked, axis, 0)[start : start + width] = mean
    return out
