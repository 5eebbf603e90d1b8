"""Images are RGB before encoding and after decoding; resizing averages areas only if it shrinks them."""

import cv2
import numpy as np
import pytest

from media.errors import BadItem, UserError
from media.images import check_image_format, decode, encode_jpeg, resize


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
