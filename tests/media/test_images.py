"""Images are RGB before encoding and after decoding; resizing averages areas only if it shrinks them."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import PIL.features
import PIL.Image
import pytest

from media.errors import BadItem, UserError
from media.images import check_image_format, decode, encode_image, encode_jpeg, resize
from media.jpeg import scan_jpeg


def test_images_come_back_in_rgb_and_black_is_black():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 250
    data = encode_jpeg(image)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert decoded[8, 8, 0] > 240
    assert decoded[8, 8, 2] < 15
    grey = encode_jpeg(np.full((8, 8), 77, np.uint8))
    assert cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_COLOR).shape == (8, 8, 3)


def test_decoding_gives_back_what_was_encoded_in_rgb():
    image = np.full((16, 24, 3), (200, 100, 20), np.uint8)
    decoded = decode(encode_jpeg(image), "a.jpg")
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).max() <= 3


@pytest.mark.parametrize("data", [b"", b"\xff\xd8 no picture"])
def test_bytes_that_are_not_an_image_are_a_bad_item_with_its_name(data):
    with pytest.raises(BadItem, match=r"image a\.jpg cannot be decoded"):
        decode(data, "a.jpg")


def test_shrinking_averages_and_the_same_size_is_left_alone():
    board = (np.indices((8, 8)).sum(0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, -1)
    assert np.all(resize(board, 4) == 100)
    assert resize(board, 8) is board
    assert resize(board, 16).shape == (16, 16, 3)


def test_an_unknown_image_format_is_refused():
    with pytest.raises(UserError, match="did you mean 'webp'"):
        check_image_format("wepb")


def photo() -> np.ndarray:
    """Noise on a ramp, uint8 `[64, 96, 3]`."""
    ramp = np.linspace(40, 200, 96)[None, :, None] + np.random.default_rng(0).normal(0, 12, (64, 96, 3))
    return np.clip(ramp, 0, 255).astype(np.uint8)


def progressive() -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(photo()).save(data, "JPEG", progressive=True, quality=90)
    return data.getvalue()


TRAILERS = {
    "nothing": b"",
    "padding": b"\0" * 4096,
    "a phone's notes": b"\0\0\1\nImage_UTC_Data1700000000000SEFHe\0\0\0SEFT",
    "a film": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40,
    "another JPEG, cut short": encode_jpeg(photo())[:500],
}


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
@pytest.mark.parametrize("trailer", TRAILERS)
def test_what_follows_a_jpeg_does_not_matter(kind, trailer):
    whole = encode_jpeg(photo()) if kind == "baseline" else progressive()
    data = whole + TRAILERS[trailer]
    assert scan_jpeg(data).end == len(whole)
    np.testing.assert_array_equal(decode(data, "a.jpg"), decode(whole, "a.jpg"))


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("padding", [0, 4096])
def test_a_jpeg_that_is_cut_short_is_refused_even_if_it_is_padded(kind, share, padding):
    whole = encode_jpeg(photo()) if kind == "baseline" else progressive()
    with pytest.raises(BadItem, match=r"image a\.jpg (is cut short|cannot be decoded)"):
        decode(whole[: int(share * len(whole))] + b"\0" * padding, "a.jpg")


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A baseline JPEG whose header states another size."""
    place = data.index(b"\xff\xc0")
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_the_header_is_read_first():
    huge = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    huge = b"\x89PNG\r\n\x1a\n" + huge + png_chunk(b"IDAT", zlib.compress(b"\0" * 999)) + png_chunk(b"IEND", b"")
    bmp = encode_bmp()
    claims = bmp[:18] + struct.pack("<ii", 20_000, 20_000) + bmp[26:]
    tracemalloc.start()
    for data, size in ((claiming(encode_jpeg(photo()), 32_000, 32_000), 32_000), (huge, 30_000), (claims, 20_000)):
        with pytest.raises(BadItem, match=rf"image a: its picture has {size}x{size} pixels, more than 50 megapixels"):
            decode(data, "a")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert decode(encode_jpeg(photo()), "a", max_megapixels=0.0062).shape == (64, 96, 3)
    with pytest.raises(BadItem, match="96x64 pixels"):
        decode(encode_jpeg(photo()), "a", max_megapixels=0.006)
    # Below the limit too, a JPEG must hold the pixels that it claims.
    with pytest.raises(BadItem, match="is cut short"):
        decode(claiming(encode_jpeg(photo()), 5_000, 5_000), "a")


def encode_bmp() -> bytes:
    done, data = cv2.imencode(".bmp", photo())
    assert done
    return data.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_formats_that_are_cut_short_are_refused(kind):
    data = io.BytesIO()
    PIL.Image.fromarray(photo()).save(data, kind)
    assert decode(data.getvalue(), "a").shape == (64, 96, 3)
    with pytest.raises(BadItem, match="image a cannot be decoded"):
        decode(data.getvalue()[: len(data.getvalue()) // 2], "a")


def test_a_format_that_opencv_was_built_without_is_read_too():
    if not PIL.features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = io.BytesIO()
    PIL.Image.new("RGB", (40, 24), (200, 30, 30)).save(data, "AVIF", quality=95)
    image = decode(data.getvalue(), "a.avif")
    assert image.shape == (24, 40, 3)
    assert np.abs(image[12, 20].astype(int) - (200, 30, 30)).max() < 10


def test_a_heic_picture_is_refused_with_a_remedy():
    with pytest.raises(BadItem, match="HEIC is not supported, convert it to JPEG"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "a.heic")


def test_webp_keeps_its_colours():
    image = np.full((16, 24, 3), (200, 100, 20), np.uint8)
    assert np.abs(decode(encode_image(image, "webp"), "a").astype(int) - image).max() <= 6
