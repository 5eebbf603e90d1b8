"""Opens the programs in this folder; needs only jax and NumPy.

    import loader
    run = loader.load("FOLDER")
    features = run.visual(faces)                      # uint8 [b, S, S, 3] RGB -> {"descriptor": [b, 128], ...}
    traces = run.fusion({"visual": ..., "audio": ..., "visual_mask": ..., "audio_mask": ..., "mask": ...})
    carry = run.start(batch=1)                        # live: one frame at a time
    carry, outputs = run.step(carry, {...})           # features [b, 1, D], masks [b, 1]

A program that the run does not have is None.
"""

import json
import os
import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.export
import numpy as np


def _padded(program: Callable, frames: int) -> Callable:
    """Lets a program of `frames` frames take shorter sequences: pads and masks them, then cuts the padding off."""

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        length = inputs["mask"].shape[1]
        if length > frames:
            raise ValueError(f"this run takes {frames} frames at once, not {length}: cut overlapping windows.")
        widths = [(0, 0), (0, frames - length)]
        full = {k: np.pad(v, widths + [(0, 0)] * (np.ndim(v) - 2)) for k, v in inputs.items()}
        return {name: value[:, :length] for name, value in program(full).items()}

    return call


def load(folder: str | os.PathLike) -> SimpleNamespace:
    """Returns the programs of the run as functions, with its `manifest`."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    programs: dict[str, Any] = dict.fromkeys(("visual", "audio", "fusion", "step"))
    for name, about in manifest["parts"].items():
        exported = jax.export.deserialize(bytearray((folder / about["file"]).read_bytes()))
        programs[name] = jax.jit(exported.call)
        if "frames" in about:
            programs[name] = _padded(programs[name], about["frames"])

    def start(batch: int = 1) -> list[np.ndarray]:
        """Returns the carry that a sequence starts with, for `batch` sequences at once."""
        with np.load(folder / manifest["parts"]["step"]["start"]) as file:
            leaves = [file[name] for name in file.files]
        return [np.repeat(leaf, batch, axis=0) for leaf in leaves]

    return SimpleNamespace(**programs, start=start, manifest=manifest)
