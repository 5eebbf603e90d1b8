"""Frames keep their times and are upright."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from media import video
from media.container import ReadOptions
from media.errors import BadItem


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 5.2])
@pytest.mark.portable
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


# The display matrix (a, b, c, d) moves the pixel at (x, y) to (ax + cy, bx + dy).
SHOWN = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # as phones write when held upright
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): np.fliplr,  # as front cameras write
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda image: np.swapaxes(image, 0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(np.swapaxes(image, 0, 1), 2),
}


@pytest.mark.parametrize("matrix", SHOWN)
@pytest.mark.portable
def test_rotations_and_flips_of_the_display_matrix_are_applied(tmp_path, draw, matrix):
    path = draw.video(tmp_path / "a.mp4", [draw.picture((100, 4, 24))] * 2, [0, 0.04])
    upright = next(iter(video.decode(path))).image
    data = bytearray(path.read_bytes())
    unity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in matrix)
    place = data.index(unity, data.index(b"tkhd"))
    data[place : place + len(unity)] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    notes = []
    turned = next(iter(video.decode(path, note=notes.append))).image
    np.testing.assert_array_equal(turned, SHOWN[matrix](upright))
    assert notes == []


@pytest.mark.parametrize(("shape", "size"), [((4, 3), (96, 171)), ((8, 9), (108, 128)), ((1, 1), (96, 128))])
def test_pixels_become_square(tmp_path, draw, shape, size):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*shape)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(draw.picture((32, 24, 48)), format="rgb24")))
        out.mux(stream.encode(None))
    (frame,) = video.decode(path)
    assert frame.image.shape[:2] == size
    red = frame.image[..., 0].astype(int) - frame.image[..., 2] > 100
    assert red.any(0).sum() == pytest.approx(48 * max(1, shape[0] / shape[1]), abs=2)
    assert red.any(1).sum() == pytest.approx(48 / min(1, shape[0] / shape[1]), abs=2)


def test_frames_without_times_follow_at_the_rate_and_it_is_said(tmp_path, draw):
    path, notes = tmp_path / "a.h264", []
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for i in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(draw.picture((4 * i, 30, 32)), format="rgb24")))
        out.mux(stream.encode(None))
    frames = list(video.decode(path, note=notes.append))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / video.probe(path).fps)
    assert len(notes) == 1
    assert "no times" in notes[0]


@pytest.mark.parametrize("most", [1.0, 1.2])
def test_a_video_above_the_limit_is_refused_by_its_header(tmp_path, most):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1200, 900, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(1200, 900, "yuv420p")))
        out.mux(stream.encode(None))
    options = ReadOptions(max_megapixels=most)
    if most > 1.08:
        assert len(list(video.decode(path, options=options))) == 1
        return
    for read in (video.probe, lambda path, options: list(video.decode(path, options=options))):
        with pytest.raises(BadItem, match=r"1200x900 pixels, more than 1 megapixels \(--max_megapixels"):
            read(path, options)


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


def test_a_size_above_the_limit_on_the_way_is_refused(tmp_path):
    parts = []
    for width, height in ((128, 96), (640, 480)):
        path = tmp_path / f"{width}.h264"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(3):
                out.mux(stream.encode(av.VideoFrame(width, height, "yuv420p")))
            out.mux(stream.encode(None))
        parts.append(path.read_bytes())
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(parts))
    assert len(list(video.decode(joined))) == 6
    with pytest.raises(BadItem):
        list(video.decode(joined, options=ReadOptions(max_megapixels=0.1)))
