"""Stamps that begin again, jump or leap: picture and sound are moved alike, or the file is refused."""

import types
from fractions import Fraction

import numpy as np
import pytest

from media import audio, video
from media.clock import Clock
from media.errors import BadItem


def packets(*tracks):
    """Packets of 0.1 s of several tracks `{index: times}`, interleaved in the order given."""
    out = []
    for index, times in tracks:
        stream = types.SimpleNamespace(index=index)
        for time in times:
            ticks = round(time * 1000)
            out.append(
                types.SimpleNamespace(stream=stream, dts=ticks, pts=ticks, duration=100, time_base=Fraction(1, 1000))
            )
    return out


def times(clock, *tracks):
    """What a clock makes of the packets: times by track."""
    moved = {}
    for packet in packets(*tracks):
        clock(packet)
        moved.setdefault(packet.stream.index, []).append(packet.pts / 1000)
    return moved


def steps(begin, count):
    return begin + np.arange(count) / 10


def test_an_ordinary_file_is_left_alone():
    clock = Clock()
    moved = times(clock, (0, steps(0, 50)), (1, steps(0.03, 50)), (0, steps(5, 10)), (1, steps(5.03, 10)))
    np.testing.assert_allclose(moved[0], steps(0, 60))
    np.testing.assert_allclose(moved[1], steps(0.03, 60))
    assert clock.jumps == []
    assert clock.end[0] == pytest.approx(6.0)


@pytest.mark.parametrize("begin", [0.0, 3.0, 90_000.0])  # restarts, jumps back, leaps by a day
def test_both_tracks_are_moved_alike(begin):
    clock = Clock()
    first = [(0, steps(0, 100)), (1, steps(0.04, 100))]
    moved = times(clock, *first, (0, steps(begin, 100)), (1, steps(begin + 0.04, 100)))
    np.testing.assert_allclose(moved[0], steps(0, 200), atol=2e-3)
    np.testing.assert_allclose(moved[1], steps(0.04, 200), atol=2e-3)
    assert clock.jumps == [pytest.approx(10.0)]


def test_a_pause_of_all_tracks_keeps_its_length():
    moved = times(Clock(), (0, steps(0, 100)), (1, steps(0, 100)), (0, steps(60, 100)), (1, steps(60, 100)))
    assert moved[0][100] == moved[1][100] == 60


def test_a_picture_that_stands_while_sound_goes_on_is_no_jump():
    moved = times(Clock(), (0, [0.0]), (1, steps(0, 300)), (0, [30.0]), (1, steps(30, 300)), (0, [60.0]))
    assert moved[0] == [0.0, 30.0, 60.0]


@pytest.mark.parametrize("begin", [0.0, 70.0])
def test_a_jump_of_one_track_alone_is_refused(begin):
    alone = [(0, steps(begin, 60)), (1, steps(10, 60)), (0, steps(begin + 6, 10)), (1, steps(16, 10))]
    with pytest.raises(BadItem, match=r"part at 1\d\.\d s"):
        times(Clock(), (0, steps(0, 100)), (1, steps(0, 100)), *alone)


def test_pictures_stored_out_of_order_without_stamps_of_decoding_are_no_jump():
    clock = Clock()
    shown = [0.0, 0.6, 0.3, 0.1, 0.2, 0.4, 0.5, 1.2, 0.9, 0.7, 0.8, 1.0, 1.1]
    for packet in packets((0, shown)):
        packet.dts = None if packet.pts < 1000 else packet.pts - 600
        clock(packet)
    assert clock.jumps == []


def test_a_track_that_ends_before_the_other_jumps_is_no_fault():
    moved = times(Clock(), (0, steps(0, 100)), (1, steps(0, 100)), (0, steps(0, 100)))
    np.testing.assert_allclose(moved[0], steps(0, 200), atol=2e-3)


def test_joined_transport_streams_keep_picture_and_sound_together(tmp_path, draw):
    """What `cat a.ts b.ts` makes: FFmpeg itself hands out the first clock again."""
    images, stamps, sound = draw.talking(2.0, 25)
    sound[:] = 0
    sound[16000:16160] = 0.9  # a click at 1 s, when the square is away
    for i in (24, 25, 26):
        images[i] = draw.picture(None)
    part = draw.video(tmp_path / "a.ts", images, stamps, sound)
    path = tmp_path / "joined.ts"
    path.write_bytes(part.read_bytes() * 2)
    notes = []
    frames = list(video.decode(path, note=notes.append))
    assert len(frames) == 100
    assert any("jumps" in note for note in notes)
    gone = [frame.time for frame in frames if not (frame.image[..., 0].astype(int) - frame.image[..., 2] > 100).any()]
    blocks = list(audio.without_gaps(audio.decode(path)))
    samples = np.concatenate([part for _, part in blocks])
    loud = np.flatnonzero(np.abs(samples) > 0.3) / 16000 + blocks[0][0]
    for number, heard in ((1, loud[0]), (4, loud[loud > loud[0] + 1][0])):
        assert heard == pytest.approx(gone[number], abs=0.03)
    # The second part begins when the first has ended: its sound lasts 33 AAC frames of 64 ms.
    assert gone[4] - gone[1] == pytest.approx(2.112, abs=0.01)
