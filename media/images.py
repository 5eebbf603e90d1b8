"""Still images: encoding, decoding and resizing."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from media.container import MAX_MEGAPIXELS, check_size
from media.errors import BadItem, unknown
from media.jpeg import JPEG_MARK, scan_jpeg

# Our own limit is checked instead, before anything is decoded; Pillow's would warn, and is another one.
PIL.Image.MAX_IMAGE_PIXELS = None
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")

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


def decode(data: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes an image to uint8 `[H, W, 3]`, RGB, upright according to its EXIF orientation.

    Raises:
      BadItem: the bytes are not an image, are cut short, or make more than `max_megapixels`; `name` is named.
    """
    width, height, whole = _stated(data, name)
    try:
        check_size(width, height, max_megapixels)
    except BadItem as error:
        raise BadItem(f"image {name}: {error}") from error
    if not whole:
        raise BadItem(f"image {name} is cut short")
    image = None
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is not None:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    try:  # formats that this OpenCV was built without, such as AVIF
        with _pillow(data) as picture:
            return np.array(PIL.ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadItem(f"image {name} cannot be decoded") from error


@contextlib.contextmanager
def _pillow(data: bytes) -> Iterator[PIL.Image.Image]:
    with warnings.catch_warnings(action="ignore"), PIL.Image.open(io.BytesIO(data)) as picture:
        yield picture


def _stated(data: bytes, name: str) -> tuple[int, int, bool]:
    """The width and height that the header states, so that a small file cannot take gigabytes; False for a cut JPEG.

    Raises:
      BadItem: the bytes are not an image.
    """
    if data[:2] == JPEG_MARK:
        scan = scan_jpeg(data)
        if not scan.width:
            raise BadItem(f"image {name} cannot be decoded")
        return scan.width, scan.height, bool(scan.end)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), True
    try:
        with _pillow(data) as picture:
            return *picture.size, True
    except (OSError, ValueError, SyntaxError) as error:
        heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS
        remedy = ": HEIC is not supported, convert it to JPEG" if heic else ""
        raise BadItem(f"image {name} cannot be decoded{remedy}") from error


def resize(image: np.ndarray, size: int, quick: bool = False) -> np.ndarray:
    """Resizes uint8 `[H, W, 3]` to `[size, size, 3]`, by area averaging if it shrinks and bilinearly otherwise.

    Averaging takes longer than decoding the picture. `quick` leaves it out for less than a quarter of the side, where
    bilinear interpolation skips no pixel.
    """
    if image.shape[:2] == (size, size):
        return image
    shrink = image.shape[0] > (1.25 * size if quick else size)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
