"""Which tracks are used, and whether a file is whole."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest

from helpers import films
from media import audio, video
from media.container import ReadOptions, opened
from media.errors import BadItem, UserError


def two_sounds(path: pathlib.Path) -> pathlib.Path:
    """Writes a video with two sound tracks: a tone at 0.1 of full scale, then one at 0.4."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sounds = [out.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for i in range(25):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * i, np.uint8), format="rgb24")
            image.pts, image.time_base = i, Fraction(1, 25)
            out.mux(picture.encode(image))
        out.mux(picture.encode(None))
        for track, level in zip(sounds, (0.1, 0.4), strict=True):
            wave = (level * np.sin(np.arange(16000) / 5)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def level(path, options=ReadOptions(), note=lambda line: None):  # noqa: B008
    samples = np.concatenate([part for _, part in audio.decode(path, options, note)])
    return float(np.abs(samples[4000:12000]).max())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_several_sound_tracks_the_default_one_or_the_chosen_one_is_heard(tmp_path, suffix):
    path, notes = two_sounds(tmp_path / f"a{suffix}"), []
    assert level(path, note=notes.append) == pytest.approx(0.1, abs=0.02)
    assert len(notes) == 1
    assert "2 sound tracks" in notes[0]
    assert level(path, ReadOptions(audio_track=1)) == pytest.approx(0.4, abs=0.05)
    with pytest.raises(BadItem, match="--audio_track=2 is not there"):
        level(path, ReadOptions(audio_track=2))


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_sound_track_of_an_unknown_codec_beside_the_used_one_does_not_matter(tmp_path, unknown):
    path = two_sounds(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    place = -1
    for _ in range(unknown + 1):
        place = data.index(b"mp4a", place + 1)
    data[place : place + 4] = b"apac"  # as iPhones write spatial sound
    place = data.index(b"esds", place)
    data[place : place + 4] = b"free"
    path.write_bytes(data)
    assert level(path) == pytest.approx(0.4 if unknown == 0 else 0.1, abs=0.05)
    assert len(list(video.decode(path))) == 25
    with pytest.raises(BadItem, match="sound is encrypted or uses a codec"):
        level(path, ReadOptions(audio_track=unknown))


def test_a_last_frame_that_stands_for_seconds_is_no_fault(tmp_path):
    path = tmp_path / "a.mp4"
    films.film(path, times=[*np.arange(10) / 25, 3.0], sound=3.2)  # the frame at 0.36 s stands for 2.6 s
    with opened(path) as file:
        assert file.duration > 3
    assert len(list(video.decode(path))) == 11
    last = tmp_path / "last.mp4"  # the declared length holds the last packet's own duration
    with av.open(str(path)) as source, av.open(str(last), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.dts is not None][:-1]:
            packet.stream = copy
            packet.duration = (
                round(2.64 / packet.time_base) if packet.pts * packet.time_base > 0.35 else packet.duration
            )
            out.mux(packet)
    with opened(last) as file:
        assert file.duration == pytest.approx(3.0, abs=0.05)
    assert len(list(video.decode(last))) == 10


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "sound.mkv"])
def test_a_file_cut_at_60_percent_is_refused(tmp_path, name):
    whole = tmp_path / f"whole-{name}"
    if name.startswith("sound"):
        films.film(whole, seconds=0.04, sound=6.0)
    else:
        films.film(whole, seconds=4.0, sound=4.0)
    if name == "a.mp4":  # the index in front, as files for streaming have it
        front = tmp_path / "front.mp4"
        with av.open(str(whole)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as out:
            copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
        whole = front
    data = whole.read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(BadItem, match=r"cut short: only \d\.\d s of|cannot be decoded"):
        list(video.decode(path)) if name != "sound.mkv" else list(audio.decode(path))


def test_a_tag_that_is_not_utf8_does_not_matter(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Xaver"
        track = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Xaver", b"M\xfcrz!"))
    assert audio.load(path).duration > 0.05


@pytest.mark.parametrize("values", [{"audio_track": -2}, {"max_megapixels": 0}])
def test_values_that_cannot_work(values):
    with pytest.raises(UserError, match=next(iter(values))):
        ReadOptions(**values).check_reading()
