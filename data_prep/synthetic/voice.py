"""A source-filter voice whose pitch, loudness, rate and timbre follow what the speaker shows.

Glottal pulses and noise pass through four formants, frame by frame in the frequency domain, in the spirit of Klatt
(1980). The numbers are textbook vowels, not a model of any speaker.
"""

import dataclasses

import numpy as np

from data_prep.synthetic import latent

RATE = 16_000  # Hz
HOP = 160  # samples: control parameters at 100 Hz
_CONTROL = RATE // HOP
_FRAME, _FFT = 480, 512
# The first three formants (Hz) of a male /a e i o u/ and schwa; how far each opens the jaw and rounds the lips.
_VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [290, 2250, 2950], [500, 920, 2500], [320, 870, 2240], [500, 1500, 2500]]
)
_JAW = np.array([1.0, 0.65, 0.35, 0.7, 0.35, 0.55])
_ROUND = np.array([0.0, -0.5, -1.0, 0.9, 1.0, 0.0])


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A voice at rest: pitch (Hz), formant scale, spectral tilt, level (dB), breath and tempo (factor)."""

    pitch: float
    tract: float
    tilt: float
    level: float
    breath: float
    tempo: float

    @classmethod
    def sample(cls, rng: np.random.Generator, deep: bool) -> "Speaker":
        """Draws a deep or a high voice. Two voices may differ by an octave in pitch and a few dB in level and tilt."""
        return cls(
            pitch=rng.uniform(100, 130) if deep else rng.uniform(175, 215),
            tract=rng.uniform(0.96, 1.04) if deep else rng.uniform(1.10, 1.18),
            tilt=rng.normal(1.35, 0.07),
            level=rng.normal(0.0, 1.0),
            breath=rng.uniform(0.02, 0.06),
            tempo=rng.uniform(0.93, 1.07),
        )


@dataclasses.dataclass(frozen=True)
class Utterances:
    """What voice and mouth do in a recording: control tracks at 100 Hz, `[N]` each."""

    voiced: np.ndarray  # amplitude of the voiced source, 0–1
    hiss: np.ndarray  # amplitude of fricative noise, 0–1
    accent: np.ndarray  # pitch movement of phrase and syllable, semitones
    formants: np.ndarray  # [N, 3] Hz, before the speaker's scale
    jaw: np.ndarray  # 0–1
    rounding: np.ndarray  # -1–1
    speaking: np.ndarray  # bool: inside a phrase


def plan(rng: np.random.Generator, shown: np.ndarray, tempo: float) -> Utterances:
    """Distributes phrases, pauses and syllables over a recording.

    Args:
      rng: source of randomness.
      shown: valence and arousal as the voice shows them, `[T, 2]` at 25 Hz.
      tempo: the speaker's factor on the syllable rate.
    """
    count = len(shown) * _CONTROL // latent.FPS
    pauses = latent.spans(rng, count, on=(1.6, 4.5), off=(0.5, 2.2), rate=_CONTROL)
    speaking = np.ones(count, bool)
    for first, end in pauses:
        speaking[first:end] = False
    voiced, hiss, accent = np.zeros(count), np.zeros(count), np.zeros(count)
    formants = np.tile(_VOWELS[5].astype(float), (count, 1))
    jaw, rounding = np.zeros(count), np.zeros(count)
    starts = [0] + [end for _, end in pauses]
    ends = [first for first, _ in pauses] + [count]
    for phrase, stop in zip(starts, ends, strict=False):
        at = phrase
        while at < stop - 8:
            valence, arousal = shown[min(at * latent.FPS // _CONTROL, len(shown) - 1)]
            rate = 4.6 * tempo * 2 ** (0.55 * arousal) * rng.uniform(0.85, 1.18)
            length = min(int(_CONTROL / rate), stop - at)
            vowel = int(rng.integers(len(_VOWELS)))
            onset = max(2, int(length * rng.uniform(0.15, 0.4)))
            body = np.arange(length - onset)
            if len(body) < 3:
                break
            bell = np.sin(np.pi * (body + 0.5) / len(body)) ** 0.6 * rng.uniform(0.75, 1.0)
            inside = slice(at + onset, at + length)
            voiced[inside] = bell
            kind = rng.random()
            if kind < 0.3:
                hiss[at : at + onset] = np.hanning(onset + 2)[1:-1] * rng.uniform(0.3, 0.7)
            elif kind < 0.6:
                voiced[at : at + onset] = 0.22  # a nasal or a glide
            formants[at : at + length] = _VOWELS[vowel] * rng.normal(1, 0.03, 3)
            # Joy swings the melody wide, gloom flattens it.
            accent[at : at + length] = rng.normal(0, 1.3) * (1 + 0.6 * valence) - 1.5 * (at - phrase) / max(
                stop - phrase, 1
            )
            jaw[inside] = bell * _JAW[vowel]
            rounding[inside] = bell * _ROUND[vowel]
            at += length
    smooth = np.hanning(9)[1:-1] / np.hanning(9).sum()

    def soften(track: np.ndarray) -> np.ndarray:
        return np.convolve(track, smooth, mode="same")

    formants = np.stack([soften(np.pad(column, 8, mode="edge"))[8:-8] for column in formants.T], axis=1)
    return Utterances(soften(voiced), soften(hiss), soften(accent), formants, soften(jaw), soften(rounding), speaking)


def synthesise(rng: np.random.Generator, speaker: Speaker, said: Utterances, shown: np.ndarray) -> np.ndarray:
    """Returns the sound, float32 `[N * 160]` in −1…1, mono at 16 kHz.

    Arousal raises pitch, level, brightness and (in `plan`) tempo; valence widens melody, shifts the formants up and
    strengthens the third as a smile does, and takes breath out of the voice.
    """
    count = len(said.voiced)
    at = np.arange(count) * latent.FPS / _CONTROL
    valence, arousal = (np.interp(at, np.arange(len(shown)), column) for column in shown.T)
    jitter = latent.smooth_noise(rng, count, 0.03, rate=_CONTROL)
    pitch = speaker.pitch * 2 ** ((4.5 * arousal + said.accent * (1 + 0.3 * arousal) + 0.25 * jitter) / 12)
    samples = np.arange(count * HOP) / HOP
    pitch_now = np.interp(samples, np.arange(count), pitch).astype(np.float32)
    phase = np.cumsum(2 * np.pi / RATE * pitch_now, dtype=np.float64) % (2 * np.pi)
    # exp(k(cos φ − 1)) is a pulse whose harmonics fade like exp(−n²/2k): k puts 8 kHz at −30 dB, so little aliases.
    sharp = (3000 / pitch_now) ** 2 / 2
    pulse = np.exp(sharp * (np.cos(phase).astype(np.float32) - 1)) * np.sqrt(pitch_now / 150)
    noise = rng.standard_normal(count * HOP, dtype=np.float32)

    frequency = np.linspace(0, RATE / 2, _FFT // 2 + 1, dtype=np.float32)
    centre = said.formants * (speaker.tract * (1 + 0.12 * valence))[:, None]
    centre = np.concatenate([centre, np.full((count, 1), 3600.0 * speaker.tract)], axis=1).astype(np.float32)
    gain = np.ones((count, len(frequency)), np.float32)
    for column, width in enumerate((80.0, 100.0, 140.0, 220.0)):
        f = centre[:, column : column + 1]
        gain *= f**2 / np.sqrt((f**2 - frequency**2) ** 2 + (width * frequency) ** 2 + 1.0)
    order = (speaker.tilt - 0.45 * arousal - 0.18 * valence).astype(np.float32)[:, None]
    gain *= np.exp(-0.5 * order * np.log1p((frequency / 500) ** 2))
    smile = np.exp(-(((frequency - 2900) / 800) ** 2)) - 0.7 * np.exp(-(((frequency - 1100) / 500) ** 2))
    gain *= np.exp(0.9 * valence.astype(np.float32)[:, None] * smile)
    level = 10 ** ((speaker.level + 6.0 * arousal) / 20)
    breath = speaker.breath * (1 - 0.6 * np.clip(valence, -1, 1))
    fricative = np.exp(-(((frequency - 5200) / 1800) ** 2))

    def spectra(wave: np.ndarray) -> np.ndarray:
        padded = np.pad(wave, (_FRAME // 2, _FRAME))
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::HOP][:count]
        return np.fft.rfft(frames * np.hanning(_FRAME + 1)[:-1].astype(np.float32), _FFT)

    def as_column(track: np.ndarray) -> np.ndarray:
        return track.astype(np.float32)[:, None]

    spectrum = gain * as_column(said.voiced * level) * (spectra(pulse) + as_column(breath) * spectra(noise))
    spectrum += as_column(0.05 * said.hiss * level) * fricative * spectra(noise)
    pieces = np.fft.irfft(spectrum, _FFT)
    wave = np.zeros(count * HOP + _FFT + HOP)
    for offset in range(0, _FFT, HOP):  # overlap-add, one stripe of hops at a time
        piece = pieces[:, offset : offset + HOP]
        stripe = np.zeros((count, HOP))
        stripe[:, : piece.shape[1]] = piece
        wave[offset : offset + count * HOP] += stripe.ravel()
    wave = wave[_FRAME // 2 : _FRAME // 2 + count * HOP]
    wave = 0.05 * wave + 3e-4 * rng.standard_normal(len(wave))
    return np.tanh(wave).astype(np.float32)
