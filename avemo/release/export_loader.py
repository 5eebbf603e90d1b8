"""Opens the programs in this folder; needs jax and NumPy, nothing else.

    import loader
    run = loader.load("FOLDER")
    features = run.visual(faces)                      # uint8 [b, S, S, 3] RGB -> {"descriptor": [b, 128], ...}
    traces = run.fusion({"visual": ..., "audio": ..., "visual_mask": ..., "audio_mask": ..., "mask": ...})
    carry = run.start(batch=1)                        # live: one frame at a time
    carry, outputs = run.step(carry, {...})           # features [b, 1, D], masks [b, 1]

Parts that the run does not have are None.
"""

import json
import pathlib
from types import SimpleNamespace

import jax
import jax.export
import numpy as np


def _padded(program, frames):
    """A program of so many frames for sequences of any length up to it: padding is masked, and cut off again."""

    def call(inputs):
        length = inputs["mask"].shape[1]
        if length > frames:
            raise ValueError(f"this run takes {frames} frames at once, not {length}: cut overlapping windows.")
        widths = [(0, 0), (0, frames - length)]
        full = {k: np.pad(v, widths + [(0, 0)] * (np.ndim(v) - 2)) for k, v in inputs.items()}
        return {name: value[:, :length] for name, value in program(full).items()}

    return call


def load(folder):
    """Returns the parts of the run as functions, with its `manifest`."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    parts = dict.fromkeys(("visual", "audio", "fusion", "step"))
    for name, part in manifest["parts"].items():
        exported = jax.export.deserialize(bytearray((folder / part["file"]).read_bytes()))
        parts[name] = jax.jit(exported.call)
        if "frames" in part:
            parts[name] = _padded(parts[name], part["frames"])

    def start(batch=1):
        """The carry that a sequence begins with, for so many sequences at once."""
        with np.load(folder / manifest["parts"]["step"]["start"]) as file:
            leaves = [file[name] for name in file.files]
        return [np.repeat(leaf, batch, axis=0) for leaf in leaves]

    return SimpleNamespace(**parts, start=start, manifest=manifest)
