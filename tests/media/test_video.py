"""Frames keep their times and are upright."""

import struct

import numpy as np
import pytest

from media import video
from media.errors import BadItem


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 5.2])
def test_times_come_from_the_container(tmp_path, draw, fps):
    times = np.arange(20) / fps
    path = draw.video(tmp_path / "a b é.mp4", [draw.picture((10 + 2 * i, 20, 30)) for i in range(20)], times)
    frames = list(video.decode(path))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=2e-5)
    assert frames[0].image.shape == (96, 128, 3)
    red = frames[0].image[30, 25]
    assert red[0] > 180
    assert red[2] < 80


def test_a_variable_frame_rate_is_kept(tmp_path, draw):
    times = np.cumsum([0, 0.02, 0.1, 0.04, 0.3, 0.033])
    path = draw.video(tmp_path / "a.mp4", [draw.picture((10, 20, 30))] * 6, times)
    np.testing.assert_allclose([frame.time for frame in video.decode(path)], times, atol=2e-5)


def test_fewer_frames_are_evenly_spread(tmp_path, draw):
    path = draw.video(tmp_path / "a.mp4", [draw.picture((10, 20, 30))] * 50, np.arange(50) / 25)
    times = [frame.time for frame in video.decode(path, fps=5)]
    np.testing.assert_allclose(times, np.arange(10) / 5, atol=1e-4)


def test_a_phones_rotation_is_applied(tmp_path, draw):
    path = draw.video(tmp_path / "a.mp4", [draw.picture((100, 4, 24))] * 2, [0, 0.04])
    upright = next(iter(video.decode(path))).image
    data = bytearray(path.read_bytes())
    unity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # as phones write when held upright
    place = data.index(unity, data.index(b"tkhd"))
    data[place : place + len(unity)] = clockwise
    path.write_bytes(data)
    turned = next(iter(video.decode(path))).image
    assert turned.shape == (128, 96, 3)
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("data", [b"", b"no video", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 64])
def test_a_file_that_is_not_a_video_is_a_bad_item(tmp_path, data):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(BadItem):
        list(video.decode(path))


def test_a_sound_file_is_not_a_video(tmp_path, draw):
    path = draw.sound(tmp_path / "a.wav", np.zeros(1600))
    with pytest.raises(BadItem, match="no video track"):
        video.probe(path)
