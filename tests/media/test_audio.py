"""The log-mel equals VGGish's, and a sound lands in the window of its video frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import audio
from media.errors import BadItem


def reference(samples):
    """VGGish's published algorithm written out: frames, periodic Hann, rfft magnitude, HTK mel, log."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([samples[i * 160 : i * 160 + 400] * window for i in range((len(samples) - 400) // 160 + 1)])
    magnitude = np.abs(np.fft.rfft(frames, 512))

    def mel(f):
        return 1127.0 * np.log(1 + f / 700.0)

    bins = mel(np.linspace(0, 8000, 257))
    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    weights = np.empty((257, 64))
    for i in range(64):
        lower, centre, upper = edges[i : i + 3]
        weights[:, i] = np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    weights[0] = 0
    return np.log(magnitude @ weights + 0.01)


def track(samples, start=0.0):
    return audio.analyse([(start, np.asarray(samples, np.float32))])


def test_log_mel_is_vggishs():
    samples = 0.3 * np.random.default_rng(0).standard_normal(16000)
    ours = audio.log_mel(samples)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference(samples), atol=2e-4)


@pytest.mark.parametrize(("samples", "rows"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (15600, 96)])
def test_rows_are_neither_padded_nor_centred(samples, rows):
    assert audio.log_mel(np.zeros(samples)).shape == (rows, 64)
    assert audio.num_rows(samples) == rows


def test_a_stream_in_pieces_gives_the_rows_of_the_whole(monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK_ROWS", 40)
    samples = np.random.default_rng(1).standard_normal(23_456).astype(np.float32) * 0.1
    pieces = [(0.0, part) for part in np.split(samples, [100, 5000, 5001, 17_000])]
    np.testing.assert_allclose(audio.analyse(pieces).log_mel, audio.log_mel(samples), atol=1e-5)


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 5.2])
@pytest.mark.parametrize("start", [0.0, 0.37])
def test_an_impulse_lies_in_the_middle_of_its_frames_window(fps, start):
    samples = 1e-3 * np.ones(16000 * 6, np.float32)
    moment = 3.0
    samples[round((moment - start) * 16000)] = 1.0
    sound = track(samples, start)
    time = np.arange(int(6 * fps)) / fps
    index, mask = audio.align(time, sound)
    frame = int(np.abs(time - moment).argmin())
    rows = sound.log_mel[index[frame] : index[frame] + 96].sum(axis=1)
    loudest = np.mean(np.flatnonzero(rows > rows.max() - 1.0))
    expected = 48 + (moment - time[frame]) * 100
    assert abs(loudest - expected) <= 1.0
    assert mask[frame]


def test_an_impulse_under_a_variable_frame_rate():
    time = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.4, 40))
    moment = time[17] + 0.004
    samples = 1e-3 * np.ones(16000 * 10, np.float32)
    samples[round(moment * 16000)] = 1.0
    sound = track(samples, 0.0)
    index, mask = audio.align(time, sound)
    rows = sound.log_mel[index[17] : index[17] + 96].sum(axis=1)
    assert abs(np.mean(np.flatnonzero(rows > rows.max() - 1.0)) - 48.4) <= 1.0
    assert mask[17]


def test_frames_before_a_late_track_and_after_a_short_one_have_no_sound():
    time = np.arange(250) / 25
    _, mask = audio.align(time, track(0.1 * np.ones(16000 * 4), start=3.0))
    assert np.array_equal(mask, (time >= 2.9 - 1e-9) & (time <= 7.1 + 1e-9))


def test_a_track_shorter_than_a_window_is_padded_with_silence():
    sound = track(0.1 * np.ones(8000))
    index, mask = audio.align(np.array([0.0, 0.2, 0.4, 2.0]), sound)
    assert mask.tolist() == [True, True, True, False]
    rows, local = audio.window_rows(sound.log_mel, index, mask)
    assert rows.shape == (96, 64)
    assert local.max() == 0
    np.testing.assert_allclose(rows[len(sound.log_mel) :], np.log(np.float32(0.01)), rtol=1e-6)


def test_silence_is_no_sound():
    samples = np.zeros(16000 * 6, np.float32)
    samples[: 16000 * 2] = 0.1
    sound = track(samples)
    _, mask = audio.align(np.array([1.0, 2.4, 2.6, 5.0]), sound)
    assert mask.tolist() == [True, True, False, False]
    assert not sound.silent
    assert track(np.zeros(16000)).silent
    assert audio.NO_SOUND.silent


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 400),
    start=st.floats(-1, 3),
    times=st.lists(st.floats(0, 8), min_size=1, max_size=30).map(sorted),
    cut=st.integers(0, 29),
)
def test_every_window_of_any_segment_is_inside_its_rows(rows, start, times, cut):
    sound = audio.Sound(np.zeros((rows, 64), np.float32), np.ones(rows, np.float32), start, rows / 100, 0.0)
    index, mask = audio.align(np.array(times), sound)
    assert np.all(np.diff(index) >= 0)
    index, mask = index[cut:], mask[cut:]
    part, local = audio.window_rows(sound.log_mel, index, mask)
    assert len(part) >= 96
    assert np.all(local >= 0)
    assert np.all(local + 96 <= len(part))


@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 44100, 2), ("b.flac", 8000, 1), ("c.wav", 16000, 1)])
def test_any_file_becomes_16_khz_mono(tmp_path, draw, name, rate, channels):
    t = np.arange(rate * 2) / rate
    tone = 0.4 * np.sin(2 * np.pi * 1000 * t)
    path = draw.sound(tmp_path / name, np.stack([tone] * channels, axis=1), rate)
    sound = audio.load(path)
    assert sound.duration == pytest.approx(2.0, abs=0.02)
    samples = np.concatenate([part for _, part in audio.decode(path)])
    assert np.abs(np.fft.rfft(samples[:16000])).argmax() == 1000
    assert np.abs(samples[2000:-2000]).max() == pytest.approx(0.4, abs=0.03)


def test_clipping_is_counted(tmp_path, draw):
    samples = np.zeros(16000)
    samples[:800] = 1.0
    assert audio.load(draw.sound(tmp_path / "a.wav", samples)).clipped == pytest.approx(0.05, abs=0.001)


def test_a_gap_in_the_stamps_is_filled_so_that_what_follows_keeps_its_time():
    parts = [(1.0, np.ones(1600, np.float32)), (1.6, np.ones(1600, np.float32))]
    joined = list(audio.without_gaps(parts))
    assert sum(len(samples) for _, samples in joined) == round(0.7 * 16000)
    assert {start for start, _ in joined} == {1.0}


def test_a_file_that_is_no_sound_is_a_bad_item(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"not a wave file at all")
    with pytest.raises(BadItem, match="sound cannot be decoded"):
        audio.load(path)


def test_real_speech_matches_the_reference(real_data):
    path = next((real_data / "ravdess_speech").glob("*/*.flac"), None)
    if path is None:
        pytest.skip("no RAVDESS speech")
    samples = np.concatenate([part for _, part in audio.decode(path)])
    np.testing.assert_allclose(audio.log_mel(samples), reference(samples), atol=5e-4)
