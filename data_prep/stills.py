"""The pictures of a corpus: read from disk, and converted to what the records store."""

import pathlib

import cv2
import numpy as np

from media.container import MAX_MEGAPIXELS
from media.errors import BadItem
from media.images import decode, encode_image
from media.jpeg import JPEG_MARK, scan_jpeg


def read(path: pathlib.Path, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes a picture to uint8 `[H, W, 3]`, RGB, upright according to its EXIF orientation.

    Raises:
      BadItem: the file is missing, not a picture, cut short, or larger than `max_megapixels`.
    """
    return decode(_bytes(path), path.name, max_megapixels)


def recoded(
    data: bytes, name: str, size: int = 0, image_format: str = "jpeg", max_megapixels: float = MAX_MEGAPIXELS
) -> bytes:
    """Re-encodes a picture in another format and size.

    A colour JPEG keeps its bytes if JPEG is wanted and `size` is 0, so that it is not compressed twice; what phones
    append to it is cut off.

    Args:
      data: the encoded picture.
      name: how errors refer to it.
      size: side of the result in pixels; 0 keeps the picture's size.
      image_format: "jpeg" or "webp".
      max_megapixels: larger pictures are refused before they are decoded.

    Raises:
      BadItem: the picture cannot be decoded, is cut short, or is too large.
    """
    image = decode(data, name, max_megapixels)
    if image_format == "jpeg" and not size and data[:2] == JPEG_MARK:
        scan = scan_jpeg(data)
        if not scan.exif and scan.components == 3:
            return data[: scan.end]
    if size and image.shape[:2] != (size, size):
        shrink = max(image.shape[:2]) > size  # pictures of corpora need not be square: `images.resize` is for faces
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return encode_image(image, image_format)


def read_encoded(
    path: pathlib.Path, size: int = 0, image_format: str = "jpeg", max_megapixels: float = MAX_MEGAPIXELS
) -> bytes:
    """Reads a picture from disk and re-encodes it as `recoded` does.

    Raises:
      BadItem: the file is missing or not a picture.
    """
    return recoded(_bytes(path), path.name, size, image_format, max_megapixels)


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadItem(f"image {path.name} is missing or unreadable") from error
