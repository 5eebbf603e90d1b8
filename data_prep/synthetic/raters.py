"""Six people who move sliders while they watch: late, biased, unequal and noisy; and the ceiling that this sets."""

import dataclasses

import numpy as np

from data_prep.annotations import ccc
from data_prep.synthetic import latent

NAMES = ("FM1 ", "FM2 ", "FM3 ", "FF1 ", "FF2 ", "FF3 ")  # with RECOLA's trailing spaces
STAMP = 1 / latent.FPS


@dataclasses.dataclass(frozen=True)
class Panel:
    """How the six raters differ. A rater's delay in seconds is `delay` plus an individual deviation.

    Real raters are 2–4 s late. The default is 1 s, because more would leave much of a recording under a minute without
    labels. Raise `delay` to make a search for it worthwhile.
    """

    delay: float = 1.0
    delay_spread: float = 0.2
    bias: float = 0.08
    gain: float = 0.12
    noise: float = 0.12
    noise_timescale: float = 0.8

    def rate(self, rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
        """Returns the six raters' traces of a latent `[T, 2]`, float64 `[T, 6, 2]` in −1…1."""
        traces = np.empty((len(truth), len(NAMES), truth.shape[1]))
        time = np.arange(len(truth)) * STAMP
        for rater in range(len(NAMES)):
            late = max(0.0, self.delay + rng.uniform(-1, 1) * self.delay_spread)
            for dimension in range(truth.shape[1]):
                seen = np.interp(time - late, time, truth[:, dimension])
                noise = latent.smooth_noise(rng, len(truth), self.noise_timescale)
                scaled = seen * (1 + self.gain * rng.standard_normal()) + self.bias * rng.standard_normal()
                traces[:, rater, dimension] = scaled + self.noise * noise
        return np.clip(traces, -1, 1)


def ceiling(truths: list[np.ndarray], panels: list[np.ndarray], delay: float) -> dict[str, dict[str, float]]:
    """Returns the best score that the raters' noise allows, that of a perfect reader of the latent.

    Args:
      truths: the latents, one `[T, 2]` per recording.
      panels: the raters' traces, one `[T, 6, 2]` per recording.
      delay: the common delay in seconds, removed before comparing.

    Returns:
      For valence and arousal, CCCs over the concatenation: `gold_vs_latent` (mean of the six, delay compensated,
      against the latent), `gold_vs_latent_uncompensated` and `leave_one_rater_out` (each against the mean of the rest).
    """
    lag = round(delay / STAMP)
    result = {}
    for column, name in enumerate(("valence", "arousal")):
        truth = [t[:, column] for t in truths]
        gold = [p[:, :, column].mean(axis=1) for p in panels]
        every = np.concatenate([p[:, :, column] for p in panels])
        others = [ccc(every[:, r], np.delete(every, r, axis=1).mean(axis=1)) for r in range(every.shape[1])]
        result[name] = {
            "gold_vs_latent": ccc(
                np.concatenate([t[: len(t) - lag] for t in truth]), np.concatenate([g[lag:] for g in gold])
            ),
            "gold_vs_latent_uncompensated": ccc(np.concatenate(truth), np.concatenate(gold)),
            "leave_one_rater_out": float(np.mean(others)),
        }
    return result
