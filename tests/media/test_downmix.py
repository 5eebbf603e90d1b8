"""One downmix for every layout: what is silent does not make the rest quieter, and a change on the way is followed."""

from fractions import Fraction

import av
import numpy as np
import pytest

from media.downmix import Mono


def frame(samples, layout, rate=16000, begin=0):
    """A frame of samples `[C, n]`."""
    made = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", layout)
    made.sample_rate, made.pts, made.time_base = rate, begin, Fraction(1, rate)
    return made


def voice(count=8000, seed=0):
    return 0.2 * np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def mixed(frames, rate=16000):
    mono = Mono(rate)
    return np.concatenate([part for made in [*frames, None] for _, part in mono(made)])


@pytest.mark.parametrize(
    ("layout", "heard"),
    [
        ("mono", {0: 1}),
        ("stereo", {0: 1, 1: 1}),
        ("stereo", {0: 1}),
        ("stereo", {1: 1}),
        ("5.1", {2: 1}),
        ("quad", {3: 1}),
    ],
)
def test_a_voice_is_as_loud_in_any_layout(layout, heard):
    samples = voice()
    channels = np.zeros((av.AudioLayout(layout).nb_channels, len(samples)), np.float32)
    for channel, gain in heard.items():
        channels[channel] = gain * samples
    np.testing.assert_allclose(mixed([frame(channels, layout)]), samples, atol=1e-6)


def test_noise_below_the_voice_by_40_db_does_not_count_and_a_click_neither():
    samples = voice()
    other = 1e-3 * voice(seed=1)
    other[6000] = 0.02
    out = mixed([frame(np.stack([samples, other]), "stereo")])
    np.testing.assert_allclose(out[100:], samples[100:], atol=1e-6)


def test_two_voices_are_averaged():
    left, right = voice(seed=1), voice(seed=2)
    np.testing.assert_allclose(
        mixed([frame(np.stack([left, right]), "stereo")])[10:], ((left + right) / 2)[10:], atol=1e-6
    )


def test_the_subwoofer_is_not_heard():
    channels = np.zeros((6, 800), np.float32)
    channels[2], channels[3] = 0.1, 0.9
    np.testing.assert_allclose(mixed([frame(channels, "5.1")]), 0.1, atol=1e-6)


def test_pieces_of_any_length_give_the_same():
    channels = np.stack([np.concatenate([np.zeros(3000, np.float32), voice(5000)]), voice(8000, 3)])
    pieces, begin = [], 0
    for part in np.split(channels, [700, 701, 2950, 3005, 6000], axis=1):
        pieces.append(frame(part, "stereo", begin=begin))
        begin += part.shape[1]
    np.testing.assert_allclose(mixed(pieces), mixed([frame(channels, "stereo")]), atol=1e-7)


def test_layout_and_rate_may_change_on_the_way():
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)
    slower = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    mono = Mono(16000)
    blocks = [
        block
        for made in (frame(np.stack([tone, tone]), "stereo", 48000), frame(slower[None], "mono", 22050, 22050), None)
        for block in mono(made)
    ]
    assert [seconds for seconds, _ in blocks if seconds is not None] == [0.0, 1.0]
    samples = np.concatenate([part for _, part in blocks])
    assert len(samples) == pytest.approx(32000, abs=40)
    for second in (samples[2000:14000], samples[18000:30000]):
        assert np.abs(np.fft.rfft(second)).argmax() * 16000 / len(second) == pytest.approx(440, abs=2)
        assert np.abs(second).max() == pytest.approx(1.0, abs=0.02)
