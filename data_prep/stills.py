"""The pictures of a corpus: read from disk, and converted to what the records store."""

import pathlib

import cv2
import numpy as np

from media.errors import BadItem
from media.images import decode, encode_image


def read(path: pathlib.Path) -> np.ndarray:
    """Decodes a picture to uint8 `[H, W, 3]`, RGB, upright according to its EXIF orientation.

    Raises:
      BadItem: the file is missing or not a picture.
    """
    return decode(_bytes(path), path.name)


def recoded(data: bytes, name: str, size: int = 0, image_format: str = "jpeg") -> bytes:
    """Re-encodes a picture in another format and size.

    A colour JPEG is returned unchanged if JPEG is wanted and `size` is 0, so that it is not compressed twice.

    Args:
      data: the encoded picture.
      name: how errors refer to it.
      size: side of the result in pixels; 0 keeps the picture's size.
      image_format: "jpeg" or "webp".

    Raises:
      BadItem: the picture cannot be decoded, or is cut short.
    """
    image = decode(data, name)
    if data[:2] == b"\xff\xd8":
        if b"\xff\xd9" not in data[-64:]:
            raise BadItem(f"image {name} is cut short")
        if image_format == "jpeg" and not size and b"Exif" not in data[:64] and _components(data) == 3:
            return data
    if size and image.shape[:2] != (size, size):
        shrink = max(image.shape[:2]) > size  # pictures of corpora need not be square: `images.resize` is for faces
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return encode_image(image, image_format)


def read_encoded(path: pathlib.Path, size: int = 0, image_format: str = "jpeg") -> bytes:
    """Reads a picture from disk and re-encodes it as `recoded` does.

    Raises:
      BadItem: the file is missing or not a picture.
    """
    return recoded(_bytes(path), path.name, size, image_format)


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadItem(f"image {path.name} is missing or unreadable") from error


def _components(data: bytes) -> int:
    """Number of colour components in a JPEG's frame header; 0 if there is no frame header."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0
