"""Opens the programs in this folder; needs only jax and NumPy.

    import loader
    run = loader.load("FOLDER")
    features = run.visual(faces)                      # uint8 [b, S, S, 3] RGB -> {"descriptor": [b, 128], ...}
    traces = run.fusion({"visual": ..., "audio": ..., "visual_mask": ..., "audio_mask": ..., "mask": ...})
    carry = run.start(batch=1)                        # live: one frame at a time
    carry, outputs = run.step(carry, {...})           # features [b, 1, D], masks [b, 1]

A program that the run does not have is None. JAX promises to read a program for six months after it was made; later
ones may refuse it, and the run has to be exported again.
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


def _read(path: pathlib.Path, made_by: dict[str, str]) -> jax.export.Exported:
    """Opens a program.

    Raises:
      ValueError: it is damaged, or older than this JAX reads.
    """
    try:
        return jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # JAX has no type of error for a program that is too old
        raise ValueError(
            f"{path}, written by jax {made_by['jax']} on {made_by.get('date', 'an unknown day')}, cannot be read by "
            f"jax {jax.__version__} ({' '.join(str(error).split())[:200] or type(error).__name__}): it is too old or "
            "damaged. Make it anew with `python launch.py export --workdir=RUN --output=DIR`, or use an older jax."
        ) from error


def load(folder: str | os.PathLike) -> SimpleNamespace:
    """Returns the programs of the run as functions, with its `manifest`.

    Raises:
      ValueError: a program is damaged, or older than this JAX reads; the message says how to make it anew.
    """
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    programs: dict[str, Any] = dict.fromkeys(("visual", "audio", "fusion", "step"))
    for name, about in manifest["parts"].items():
        programs[name] = jax.jit(_read(folder / about["file"], manifest["made_by"]).call)
        if "frames" in about:
            programs[name] = _padded(programs[name], about["frames"])

    def start(batch: int = 1) -> list[np.ndarray]:
        """Returns the carry that a sequence starts with, for `batch` sequences at once."""
        with np.load(folder / manifest["parts"]["step"]["start"]) as file:
            leaves = [file[name] for name in file.files]
        return [np.repeat(leaf, batch, axis=0) for leaf in leaves]

    return SimpleNamespace(**programs, start=start, manifest=manifest)
