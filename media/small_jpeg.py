"""JPEGs decoded straight at a fraction of their size: what shrinking would blur away is not computed.

libjpeg-turbo decodes at M/8 of the size, M = 1 to 8. OpenCV offers a half, a quarter and an eighth of that; simplejpeg
offers all of them. Without simplejpeg, OpenCV's steps are used.
"""

import dataclasses

import cv2
import numpy as np

try:
    import simplejpeg
except ImportError:  # there is no wheel for this platform
    simplejpeg = None

STEPS = 8 if simplejpeg else 0  # part of what a cache of decoded pictures follows from
DECODER = f"simplejpeg {simplejpeg.__version__}" if simplejpeg else "OpenCV"
_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


@dataclasses.dataclass(frozen=True)
class Header:
    """What the header of a JPEG says.

    Attributes:
      height: pixels.
      width: pixels.
      plain: whether it is a colour or a grey picture without EXIF, which could ask for it to be turned.
    """

    height: int
    width: int
    plain: bool


def header(data: bytes) -> Header | None:
    """Reads a JPEG's header; None if it has none."""
    position, exif = 2, False
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF, not DHT, JPG or DAC
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            return Header(height, width, data[position + 9] in (1, 3) and not exif)
        exif = exif or marker == 0xE1
        position += 2 + length
    return None


def shrunk(side: int, at_least: int) -> int:
    """The smallest side, of at least `at_least` pixels, at which a square picture is decoded."""
    if simplejpeg:
        return next(size for m in range(1, 9) if (size := -(-side * m // 8)) >= min(side, at_least))
    return next((-(-side // factor) for factor, _ in _REDUCED if side >= factor * at_least), side)


def decode_small(data: bytes, at_least: int) -> np.ndarray | None:
    """Decodes a JPEG at the smallest size of which both sides are at least `at_least` pixels.

    Returns:
      uint8 `[H, W, 3]` RGB; None if it is no JPEG, would not be smaller, or cannot be decoded like this.
    """
    found = header(data)
    if found is None:
        return None
    shortest = min(found.height, found.width)
    if simplejpeg and found.plain:
        if -(-shortest * 7 // 8) < at_least:
            return None
        try:
            return simplejpeg.decode_jpeg(data, "RGB", min_height=at_least, min_width=at_least, min_factor=1)
        except ValueError:  # damaged: OpenCV decodes what it can
            return None
    mode = next((flag for factor, flag in _REDUCED if shortest >= factor * at_least), None)
    image = None if mode is None else cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
