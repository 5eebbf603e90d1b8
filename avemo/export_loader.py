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


def load(folder):
    """Returns the parts of the run as functions, with its `manifest`."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    parts = dict.fromkeys(("visual", "audio", "fusion", "step"))
    for name, part in manifest["parts"].items():
        exported = jax.export.deserialize(bytearray((folder / part["file"]).read_bytes()))
        parts[name] = jax.jit(exported.call)

    def start(batch=1):
        """The carry that a sequence begins with, for so many sequences at once."""
        with np.load(folder / manifest["parts"]["step"]["start"]) as file:
            leaves = [file[name] for name in file.files]
        return [np.repeat(leaf, batch, axis=0) for leaf in leaves]

    return SimpleNamespace(**parts, start=start, manifest=manifest)
