"""JPEGs come out smaller if that is enough, and as they are otherwise."""

import cv2
import numpy as np
import pytest

from media import small_jpeg
from media.images import encode_image, encode_jpeg, resize


def picture(side=224):
    noise = np.random.default_rng(0).uniform(0, 255, (14, 14, 3)).astype(np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(params=["simplejpeg", "OpenCV"])
def decoder(request, monkeypatch):
    if request.param == "OpenCV":
        monkeypatch.setattr(small_jpeg, "simplejpeg", None)
    elif small_jpeg.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    return request.param


def test_the_smallest_size_that_is_enough(decoder):
    data = encode_jpeg(picture())
    sides = {wanted: small_jpeg.decode_small(data, wanted).shape[0] for wanted in (28, 57, 112)}
    assert sides == ({28: 28, 57: 84, 112: 112} if decoder == "simplejpeg" else {28: 56, 57: 112, 112: 112})
    assert sides == {wanted: small_jpeg.shrunk(224, wanted) for wanted in sides}
    assert small_jpeg.shrunk(224, 224) == small_jpeg.shrunk(224, 300) == 224
    for wanted, side in sides.items():
        small = small_jpeg.decode_small(data, wanted)
        assert np.abs(small.astype(int) - resize(picture(), side)).mean() < 4
    five = small_jpeg.decode_small(data, 140)
    assert five is None if decoder == "OpenCV" else five.shape == (140, 140, 3)
    assert small_jpeg.decode_small(data, 224) is None


def test_a_picture_that_is_not_square_keeps_both_sides_large_enough(decoder):
    tall = encode_jpeg(picture()[:, :128])
    found = small_jpeg.decode_small(tall, 60)
    assert found.shape == (112, 64, 3)


def test_grey_is_repeated_and_other_files_are_left_to_opencv(decoder):
    grey = small_jpeg.decode_small(cv2.imencode(".jpg", picture()[..., 0])[1].tobytes(), 100)
    assert grey.shape == (112, 112, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    for data in (b"", b"\xff\xd8", encode_image(picture(), "webp"), encode_jpeg(picture())[:300]):
        found = small_jpeg.decode_small(data, 100)
        assert found is None or decoder == "OpenCV"  # which fills a picture that is cut short with grey


def test_a_picture_that_exif_turns_is_left_to_opencv(decoder):
    exif = (
        b"\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
        + b"\0" * 4
    )
    data = encode_jpeg(picture()[:, :160])
    turned = data[:2] + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (160, 224, 3)
    found = small_jpeg.decode_small(turned, 80)
    assert found.shape == (80, 112, 3)


def test_a_quick_resize_averages_only_where_pixels_would_be_skipped():
    fine = np.zeros((150, 150, 3), np.uint8)
    fine[::2] = 255
    assert np.ptp(resize(fine, 75, quick=True)) == 0
    linear = cv2.resize(fine, (140, 140), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(fine, 140, quick=True), linear)
    assert not np.array_equal(resize(fine, 140), linear)
