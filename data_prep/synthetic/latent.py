"""Random streams and slow processes: what a speaker feels, and how strongly face and voice show it."""

import dataclasses
import zlib

import numpy as np
from scipy import signal

FPS = 25  # RECOLA's video and annotation rate, Hz


def stream(seed: int, *names: object) -> np.random.Generator:
    """Returns the generator of one named random stream.

    Every file draws from separate streams, so its bytes depend only on the seed and its name, not on the order of work,
    the number of workers or the number of other files.
    """
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def smooth_noise(rng: np.random.Generator, length: int, timescale: float, rate: float = FPS) -> np.ndarray:
    """Returns a stationary, unit-variance, critically damped AR(2) process, float64 `[length]`.

    Two equal real poles at exp(-1 / (timescale * rate)) make it a second-order Ornstein-Uhlenbeck process, smooth
    enough to look like a hand on a slider. Its autocorrelation is (1 + t/timescale) exp(-t/timescale).

    Args:
      rng: source of randomness.
      length: number of samples.
      timescale: time constant of either pole, in seconds.
      rate: samples per second.
    """
    pole = np.exp(-1.0 / (timescale * rate))
    warm = int(np.ceil(10 * timescale * rate))
    noise = signal.lfilter([1.0], [1.0, -2 * pole, pole**2], rng.standard_normal(warm + length))[warm:]
    variance = (1 + pole**2) / (1 - pole**2) ** 3  # of that AR(2) driven by unit white noise
    return noise / np.sqrt(variance)


def affect(rng: np.random.Generator, length: int) -> np.ndarray:
    """Returns latent valence and arousal at 25 Hz, float64 `[length, 2]`, independent, within about ±0.8.

    A recording's mean is moved towards zero, so that a minute-long recording visits both signs.
    """
    traces = np.stack([smooth_noise(rng, length, timescale=2.6) for _ in range(2)], axis=1)
    traces -= 0.6 * traces.mean(axis=0)
    return 0.85 * np.tanh(0.85 * traces)


def spans(
    rng: np.random.Generator, length: int, on: tuple[float, float], off: tuple[float, float], rate: float = FPS
) -> list[tuple[int, int]]:
    """Returns the *off* spans `(first, last + 1)` of an alternating on/off process that starts on.

    Args:
      rng: source of randomness.
      length: samples to cover.
      on: shortest and longest on time, seconds, uniform.
      off: shortest and longest off time, seconds, uniform.
      rate: samples per second.
    """
    found: list[tuple[int, int]] = []
    at = 0.0
    while True:
        start = at + rng.uniform(*on)
        at = start + rng.uniform(*off)
        first, end = round(start * rate), min(round(at * rate), length)
        if first >= length:
            return found
        found.append((first, end))


@dataclasses.dataclass(frozen=True)
class Cues:
    """How strongly face and voice carry each dimension: displayed = gain * latent + spread * slow noise.

    The noise moves as slowly as the latent does, so smoothing cannot remove it and only the other modality helps.
    """

    face_valence: tuple[float, float] = (1.0, 0.15)
    face_arousal: tuple[float, float] = (0.65, 0.30)
    voice_valence: tuple[float, float] = (0.70, 0.28)
    voice_arousal: tuple[float, float] = (1.0, 0.15)

    def display(self, rng: np.random.Generator, latent: np.ndarray, modality: str) -> np.ndarray:
        """Returns what `modality` ("face" or "voice") shows of `latent`, both `[T, 2]`."""
        shown = np.empty_like(latent)
        for column, dimension in enumerate(("valence", "arousal")):
            gain, spread = getattr(self, f"{modality}_{dimension}")
            shown[:, column] = gain * latent[:, column] + spread * smooth_noise(rng, len(latent), timescale=1.6)
        return np.clip(shown, -1.1, 1.1)
