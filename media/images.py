"""Still images: encoding, decoding and resizing."""

import cv2
import numpy as np

from media.errors import BadItem, unknown

JPEG_QUALITY = 95
IMAGE_FORMATS = {  # name: suffix and quality flag of OpenCV's encoder
    "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY),
    "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY),
}


def check_image_format(name: str) -> None:
    """Raises a `UserError` for an `--image_format` that records cannot store."""
    if name not in IMAGE_FORMATS:
        raise unknown("image format", name, IMAGE_FORMATS)


def encode_image(image: np.ndarray, image_format: str = "jpeg", quality: int = JPEG_QUALITY) -> bytes:
    """Encodes uint8 `[H, W, 3]` RGB (or `[H, W]` grey, repeated into three channels) as JPEG or WebP."""
    code = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
    suffix, flag = IMAGE_FORMATS[image_format]
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, code), [flag, quality])
    if not done:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape} as {image_format}")
    return data.tobytes()


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """Encodes uint8 `[H, W, 3]` RGB (or `[H, W]` grey) as JPEG."""
    return encode_image(image, "jpeg", quality)


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes an image to uint8 `[H, W, 3]`, RGB, upright according to its EXIF orientation.

    Raises:
      BadItem: the bytes are not an image; `name` is named.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise BadItem(f"image {name} cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 3]` to `[size, size, 3]`, by area averaging if it shrinks and bilinearly otherwise."""
    if image.shape[:2] == (size, size):
        return image
    shrink = image.shape[0] > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
