"""Still pictures: reading what lies on the disk as JPEG or WebP bytes, whole or cut out."""

import pathlib

import cv2
import numpy as np

from media.errors import BadItem
from media.records import encode_image


def read(path: pathlib.Path) -> np.ndarray:
    """Decodes a picture to uint8 `[H, W, 3]`, RGB, upright by its EXIF note.

    Raises:
      BadItem: no such file, or not a picture.
    """
    return decode(_bytes(path), path.name)


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes an encoded picture to uint8 `[H, W, 3]`, RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise BadItem(f"picture {name} cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def recoded(data: bytes, name: str, size: int = 0, image_format: str = "jpeg") -> bytes:
    """Bytes of an encoded picture in another format, unchanged where it is a colour JPEG already, JPEG is wanted and
    `size` (of the side) is 0.

    Raises:
      BadItem: it cannot be decoded, or is cut short.
    """
    image = decode(data, name)
    if data[:2] == b"\xff\xd8":
        if b"\xff\xd9" not in data[-64:]:
            raise BadItem(f"picture {name} is cut short")
        if image_format == "jpeg" and not size and b"Exif" not in data[:64] and _components(data) == 3:
            return data
    if size and image.shape[:2] != (size, size):
        shrink = max(image.shape[:2]) > size
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return encode_image(image, image_format)


def read_encoded(path: pathlib.Path, size: int = 0, image_format: str = "jpeg") -> bytes:
    """Bytes of a picture on the disk, as `recoded`.

    Raises:
      BadItem: no such file, or not a picture.
    """
    return recoded(_bytes(path), path.name, size, image_format)


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadItem(f"picture {path.name} is missing or unreadable") from error


def _components(data: bytes) -> int:
    """Number of colour components in a JPEG's frame header; 0 if none is found."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0
