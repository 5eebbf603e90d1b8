"""A run as frozen programs (`jax.export`, StableHLO) that need neither this project nor its config, only jax.

The folder holds one `.jaxexport` file a part, `manifest.json`, and `loader.py`, which opens them with jax alone. The
weights are inside the programs; batch is symbolic, and time where the network allows it; CPU, CUDA and TPU are served.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import numpy as np

from avemo.predict.networks import Head, Network
from avemo.predict.session import WINDOW, Models
from avemo.version import __version__
from media.files import publish

PLATFORMS = ("cpu", "cuda", "tpu")
LOADER = pathlib.Path(__file__).with_name("export_loader.py")


def export(workdir: str, output: str, visual: str | None = None, audio: str | None = None) -> dict[str, Any]:
    """Writes a run as frozen programs.

    Args:
      workdir: run folder of any stage; output: folder for the programs.
      visual, audio: encoder runs in place of those that a fusion run names.

    Returns:
      The manifest: parts with their inputs and outputs, preprocessing, classes, versions.

    Raises:
      UserError: the run cannot be opened, or `output` cannot be written.
    """
    models = Models(workdir, visual, audio)
    with publish(output) as folder:
        parts = {}
        for network in (models.visual, models.audio):
            if network is not None:
                parts[network.modality] = _network(network, folder)
        if models.head is not None:
            parts["fusion"] = _fusion(models.head, folder)
            if models.head.streams:
                parts["step"] = _step(models.head, folder)
        manifest = {
            "task": models.task,
            "classes": list(models.class_names),
            "fps": models.fps,
            "delay": models.delay,
            "platforms": list(PLATFORMS),
            "parts": parts,
            "preprocessing": _preprocessing(models),
            "made_by": {"avemo": __version__, "jax": jax.__version__},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.copyfile(LOADER, folder / "loader.py")
    return manifest


def _preprocessing(models: Models) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if models.visual is not None:
        out["visual"] = {"size": models.visual.image_size, "channels": "RGB, uint8", **dataclasses.asdict(models.faces)}
    if models.audio is not None:
        out["audio"] = {
            "sample_rate": 16000,
            "log_mel": "VGGish: 25 ms every 10 ms, 64 bands 125 to 7500 Hz, ln(x + 0.01)",
        }
    return out


def _network(network: Network, folder: pathlib.Path) -> dict[str, Any]:
    """An encoder: inputs `[b, ...]` to its features and heads."""
    variables = jax.device_get(network.variables)
    (batch,) = jax.export.symbolic_shape("b")
    example = jax.ShapeDtypeStruct((batch, *network.example.shape), network.example.dtype)
    return _write(lambda inputs: network.function(variables, inputs), folder / f"{network.modality}.jaxexport", example)


def _inputs(head: Head, batch: Any, frames: Any) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = {m: jax.ShapeDtypeStruct((batch, frames, d), np.float32) for m, d in head.dims.items()}
    masks = {name: jax.ShapeDtypeStruct((batch, frames), np.bool_) for name in ("audio_mask", "visual_mask", "mask")}
    return {**shapes, **masks}


def _fusion(head: Head, folder: pathlib.Path) -> dict[str, Any]:
    """The fusion over whole sequences: audio and visual `[b, t, D]`, their masks and `mask` `[b, t]`.

    Time is symbolic where every layer allows it. Positions of attention and associative scans do not: such a program
    takes `WINDOW` frames, up to which the loader pads.
    """
    variables = jax.device_get(head.variables)

    def whole(inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        out = head.function(variables, inputs, None)
        return {name: out[name] for name in head.outputs}

    path = folder / "fusion.jaxexport"
    batch, frames = jax.export.symbolic_shape("b, t")
    try:
        return _write(whole, path, _inputs(head, batch, frames))
    except (jax.errors.JAXTypeError, NotImplementedError):  # a length that must be known while tracing
        (batch,) = jax.export.symbolic_shape("b")
        return {**_write(whole, path, _inputs(head, batch, WINDOW)), "frames": WINDOW}


def _step(head: Head, folder: pathlib.Path) -> dict[str, Any]:
    """The fusion frame by frame: (carry, features of one frame `[b, 1, D]`) to (carry, outputs `[b, 1, ...]`)."""
    variables = jax.device_get(head.variables)
    (batch,) = jax.export.symbolic_shape("b")
    # A sequence starts from the carry that one padded frame leaves: padding changes nothing.
    first = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), _inputs(head, 1, 1))
    start = jax.device_get(head.function(variables, first, None)["carry"])

    def step(carry: Any, inputs: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
        out = head.function(variables, inputs, carry)
        return out["carry"], {name: out[name] for name in head.outputs}

    leaves, tree = jax.tree.flatten(start)
    carry = tree.unflatten([jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype) for leaf in leaves])
    np.savez(folder / "start.npz", *leaves)

    def flat(carry: list[jax.Array], inputs: dict[str, jax.Array]) -> tuple[list[jax.Array], dict[str, jax.Array]]:
        new, out = step(tree.unflatten(carry), inputs)
        return jax.tree.leaves(new), out

    shapes = jax.tree.leaves(carry)
    return {**_write(flat, folder / "step.jaxexport", shapes, _inputs(head, batch, 1)), "start": "start.npz"}


def _write(function: Callable, path: pathlib.Path, *examples: Any) -> dict[str, Any]:
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*examples)
    path.write_bytes(exported.serialize())
    return {
        "file": path.name,
        "inputs": [f"{a.dtype}{list(map(str, a.shape))}" for a in exported.in_avals],
        "outputs": [f"{a.dtype}{list(map(str, a.shape))}" for a in exported.out_avals],
        "bytes": path.stat().st_size,
    }
