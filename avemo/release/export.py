"""Exports a run as frozen programs (`jax.export`, StableHLO) that need jax alone: neither this project nor a config.

The folder holds one `.jaxexport` file per network, `manifest.json`, and `loader.py`, which opens them. The programs
contain the weights. The batch size is symbolic, and so is time if the network allows it. They run on CPU, CUDA and TPU.
JAX promises to read them for six months; so the manifest says when they were made, and the loader how to make new ones.
"""

import contextlib
import dataclasses
import datetime
import importlib.resources
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import numpy as np

from avemo.predict.fusion import WINDOW, FusionNetwork
from avemo.predict.models import RunNetworks, open_models
from avemo.release import onnx_export
from avemo.runs.encoder import Encoder
from avemo.version import __version__
from media.errors import UserError, unknown
from media.files import publish

PLATFORMS = ("cpu", "cuda", "tpu")
LOADERS = {"stablehlo": "export_loader.py", "onnx": "onnx_loader.py"}


FORMATS = ("stablehlo", "onnx")


def export(
    workdir: str, output: str, visual: str | None = None, audio: str | None = None, format: str = FORMATS[0]
) -> dict[str, Any]:
    """Writes a run as frozen programs.

    Args:
      workdir: run folder of any stage.
      output: folder for the programs.
      visual, audio: encoder runs that replace the ones a fusion run recorded.
      format: "stablehlo", for `jax` alone, or "onnx", for `onnxruntime` alone.

    Returns:
      The manifest: the programs with their inputs and outputs, preprocessing, classes, versions.

    Raises:
      UserError: the run cannot be opened, or `output` cannot be written.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    runs = open_models(workdir, visual, audio).runs
    if len(runs) > 1:
        raise UserError(f"--workdir={workdir} names {len(runs)} runs: export takes one.")
    run = runs[0]
    with publish(output) as folder:
        programs = onnx_export.write(run, folder) if format == "onnx" else _programs(run, folder)
        manifest = {
            "task": run.task,
            "classes": list(run.class_names),
            "fps": run.fps,
            "delay": run.delay,
            **({"platforms": list(PLATFORMS)} if format == FORMATS[0] else {"opset": onnx_export.OPSET}),
            "parts": programs,
            "preprocessing": _preprocessing(run),
            "made_by": {
                "avemo": __version__,
                "jax": jax.__version__,
                "date": f"{datetime.datetime.now(datetime.UTC):%F}",
            },
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        loader = LOADERS[format]
        (folder / "loader.py").write_bytes((importlib.resources.files("avemo.release") / loader).read_bytes())
    return manifest


def _programs(run: RunNetworks, folder: pathlib.Path) -> dict[str, Any]:
    programs = {e.modality: _encoder(e, folder) for e in (run.visual, run.audio) if e is not None}
    if run.fusion is not None:
        programs["fusion"] = _fusion(run.fusion, folder)
        if run.fusion.streams:
            programs["step"] = _step(run.fusion, folder)
    return programs


def _preprocessing(run: RunNetworks) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if run.visual is not None:
        faces = dataclasses.replace(run.faces, detector_model=pathlib.PurePath(run.faces.detector_model).name)
        out["visual"] = {"size": run.visual.image_size, "channels": "RGB, uint8", **dataclasses.asdict(faces)}
    if run.audio is not None:
        out["audio"] = {
            "sample_rate": 16000,
            "log_mel": "VGGish: 25 ms every 10 ms, 64 bands 125 to 7500 Hz, ln(x + 0.01)",
        }
    return out


def _encoder(encoder: Encoder, folder: pathlib.Path) -> dict[str, Any]:
    """Exports an encoder: inputs `[b, ...]` to its features and heads."""
    variables = jax.device_get(encoder.variables)
    (batch,) = jax.export.symbolic_shape("b")
    example = jax.ShapeDtypeStruct((batch, *encoder.example.shape), encoder.example.dtype)
    return _write(lambda inputs: encoder.network(variables, inputs), folder / f"{encoder.modality}.jaxexport", example)


def _inputs(fusion: FusionNetwork, batch: Any, frames: Any) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = {m: jax.ShapeDtypeStruct((batch, frames, d), np.float32) for m, d in fusion.dims.items()}
    masks = {name: jax.ShapeDtypeStruct((batch, frames), np.bool_) for name in ("audio_mask", "visual_mask", "mask")}
    return {**shapes, **masks}


def _fusion(fusion: FusionNetwork, folder: pathlib.Path) -> dict[str, Any]:
    """Exports the fusion over whole sequences: audio and visual `[b, t, D]`, their masks and `mask` `[b, t]`.

    Time is symbolic if every layer allows it. Positions of attention and associative scans do not; such a program takes
    `WINDOW` frames, and the loader pads shorter sequences.
    """
    variables = jax.device_get(fusion.variables)

    def whole(inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        out = fusion.function(variables, inputs, None)
        return {name: out[name] for name in fusion.outputs}

    path = folder / "fusion.jaxexport"
    batch, frames = jax.export.symbolic_shape("b, t")
    try:
        return _write(whole, path, _inputs(fusion, batch, frames))
    except (jax.errors.JAXTypeError, NotImplementedError):  # a layer needs a concrete length
        (batch,) = jax.export.symbolic_shape("b")
        return {**_write(whole, path, _inputs(fusion, batch, WINDOW)), "frames": WINDOW}


def _step(fusion: FusionNetwork, folder: pathlib.Path) -> dict[str, Any]:
    """Exports the fusion frame by frame: (carry, features of one frame `[b, 1, D]`) to (carry, outputs `[b, 1, ...]`).

    The carry is exported as a flat list of its leaves.
    """
    variables = jax.device_get(fusion.variables)
    (batch,) = jax.export.symbolic_shape("b")
    # A sequence starts from the carry that one padded frame leaves, because padding changes nothing.
    first = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), _inputs(fusion, 1, 1))
    start = jax.device_get(fusion.function(variables, first, None)["carry"])
    leaves, structure = jax.tree.leaves(start), jax.tree.structure(start)
    np.savez(folder / "start.npz", *leaves)

    def step(carry: list[jax.Array], inputs: dict[str, jax.Array]) -> tuple[list[jax.Array], dict[str, jax.Array]]:
        out = fusion.function(variables, inputs, jax.tree.unflatten(structure, carry))
        return jax.tree.leaves(out["carry"]), {name: out[name] for name in fusion.outputs}

    carry = [jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
    return {**_write(step, folder / "step.jaxexport", carry, _inputs(fusion, batch, 1)), "start": "start.npz"}


@contextlib.contextmanager
def _no_places_of_code() -> Iterator[None]:
    """Programs are made without the paths of the source files that they come from."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _write(function: Callable, path: pathlib.Path, *examples: Any) -> dict[str, Any]:
    with _no_places_of_code():
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*examples)
    path.write_bytes(exported.serialize())
    return {
        "file": path.name,
        "inputs": [f"{a.dtype}{list(map(str, a.shape))}" for a in exported.in_avals],
        "outputs": [f"{a.dtype}{list(map(str, a.shape))}" for a in exported.out_avals],
        "bytes": path.stat().st_size,
    }
