"""Small feature data sets whose targets are a known function of each modality's signal."""

import numpy as np

from helpers import toy
from media import records


def recording(rng, name, frames=40, dim=4, kind="both"):
    """Features whose first column is a smooth signal, one per modality; `kind` says how they make the target."""
    kernel = np.hanning(9) / np.hanning(9).sum()
    a, v = (2 * np.convolve(rng.normal(0, 1, frames + 8), kernel, "valid") for _ in range(2))
    target = {"audio": a, "visual": v, "both": (a + v) / 2, "product": a * v}[kind]
    audio, visual = (rng.normal(0, 1, (frames, dim)).astype(np.float32) for _ in range(2))
    audio[:, 0], visual[:, 0] = a, v
    return {
        "recording": name,
        "subject": name,
        "fps": 25.0,
        "time": (np.arange(frames) / 25).astype(np.float32),
        "audio": audio,
        "visual": visual,
        "audio_mask": np.ones(frames, bool),
        "visual_mask": np.arange(frames) % 11 > 0,
        "targets": np.stack([target, -target], -1).astype(np.float32),
        "target_mask": np.ones(frames, bool),
        "raters": np.full((frames, 1, 2), np.nan, np.float32),
        "label": -1,
    }


def write_features(folder, kind="both", count=4, frames=40, **options):
    """Writes `count` recordings per split, of `frames` frames each, or in turn of the lengths in `frames`."""
    rng, lengths = np.random.default_rng(0), np.atleast_1d(frames).tolist()
    splits = {
        s: [recording(rng, f"{s}{n}", lengths[n % len(lengths)], kind=kind, **options) for n in range(count)]
        for s in ("train", "dev", "test")
    }
    return toy.write(folder, "features", records.extracted_features(4, 4), splits)
