"""Opens the ONNX files in this folder; needs only NumPy and onnxruntime.

    import loader
    run = loader.load("FOLDER")
    features = run.visual({"inputs": faces})          # uint8 [b, S, S, 3] RGB -> {"logits": [b, 8], ...}
    said = run.fusion({"visual": ..., "audio": ..., "visual_mask": ..., "audio_mask": ..., "mask": ...})
    carry = run.start(batch=1)                        # live: one frame at a time
    carry, outputs = run.step(carry, {...})           # features [b, 1, D], masks [b, 1]

A network that the run does not have is None.
"""

import json
import os
import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class Network:
    """One file: arrays by name to arrays by name."""

    def __init__(self, path: pathlib.Path):
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Runs the network; an input that it does not read is left out."""
        given = {name: np.asarray(value) for name, value in inputs.items() if name in self._inputs}
        return dict(zip(self._names, self._session.run(None, given), strict=True))


def load(folder: str | os.PathLike) -> SimpleNamespace:
    """Returns the networks of the run as functions, with its `manifest`."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    networks: dict[str, Any] = dict.fromkeys(("visual", "audio", "fusion", "step"))
    for name, about in manifest["parts"].items():
        networks[name] = Network(folder / about["file"])
    single = networks.pop("step")

    def start(batch: int = 1) -> list[np.ndarray]:
        """Returns the carry that a sequence starts with, for `batch` sequences at once."""
        with np.load(folder / manifest["parts"]["step"]["start"]) as file:
            return [np.repeat(file[name], batch, axis=0) for name in file.files]

    def step(carry: list[np.ndarray], inputs: dict[str, Any]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Takes one frame of each sequence; returns the next carry and the outputs."""
        out = single({**{f"carry_{i}": leaf for i, leaf in enumerate(carry)}, **inputs})
        return [out.pop(f"next_carry_{i}") for i in range(len(carry))], out

    return SimpleNamespace(**networks, step=step if single else None, start=start, manifest=manifest)
