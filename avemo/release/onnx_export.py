"""Writes the networks of a run as ONNX files, by jax2onnx: batch and time are symbolic, the weights are inside.

Each file takes and gives arrays by name. jax2onnx is an optional requirement (the extra `onnx`).
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax

from avemo.predict.fusion import FusionNetwork
from avemo.predict.models import RunNetworks
from avemo.runs.encoder import Encoder
from media.errors import UserError

OPSET = 21
Arrays = dict[str, Any]
_MASKS = ("audio_mask", "visual_mask", "mask")


def write(run: RunNetworks, folder: pathlib.Path) -> dict[str, Any]:
    """Writes every network of a run into `folder`.

    Returns:
      For each its file, and the names and shapes of its inputs and outputs.

    Raises:
      UserError: jax2onnx is not installed, or a network has an operator that it cannot write.
    """
    programs = {e.modality: _encoder(e, folder) for e in (run.visual, run.audio) if e is not None}
    if run.fusion is not None:
        programs["fusion"] = _fusion(run.fusion, folder)
        if run.fusion.streams:
            programs["step"] = _step(run.fusion, folder)
    return programs


def _encoder(encoder: Encoder, folder: pathlib.Path) -> dict[str, Any]:
    variables = jax.device_get(encoder.variables)
    blank = encoder.example
    inputs = {"inputs": (("b", *blank.shape), blank.dtype)}
    return _file(lambda x: encoder.network(variables, x["inputs"]), folder / f"{encoder.modality}.onnx", inputs)


def _inputs(fusion: FusionNetwork, frames: str | int) -> dict[str, tuple[tuple, Any]]:
    features = {m: (("b", frames, d), np.dtype(np.float32)) for m, d in fusion.dims.items()}
    return {**features, **{name: (("b", frames), np.dtype(bool)) for name in _MASKS}}


def _fusion(fusion: FusionNetwork, folder: pathlib.Path) -> dict[str, Any]:
    variables = jax.device_get(fusion.variables)

    def whole(inputs: Arrays) -> Arrays:
        out = fusion.function(variables, inputs, None)
        return {name: out[name] for name in fusion.outputs}

    return _file(whole, folder / "fusion.onnx", _inputs(fusion, "t"))


def _step(fusion: FusionNetwork, folder: pathlib.Path) -> dict[str, Any]:
    """The fusion frame by frame; the inputs `carry_0`, `carry_1`, … become the outputs `next_carry_0`, …"""
    variables = jax.device_get(fusion.variables)
    first = {name: np.zeros((1, *shape[1:]), dtype) for name, (shape, dtype) in _inputs(fusion, 1).items()}
    start = jax.device_get(fusion.function(variables, first, None)["carry"])
    leaves, structure = jax.tree.leaves(start), jax.tree.structure(start)
    np.savez(folder / "start.npz", *leaves)
    names = [f"carry_{i}" for i in range(len(leaves))]

    def step(inputs: Arrays) -> Arrays:
        batch = {name: value for name, value in inputs.items() if name not in names}
        out = fusion.function(variables, batch, jax.tree.unflatten(structure, [inputs[name] for name in names]))
        carry = {f"next_{name}": leaf for name, leaf in zip(names, jax.tree.leaves(out["carry"]), strict=True)}
        return {**carry, **{name: out[name] for name in fusion.outputs}}

    carry = {name: (("b", *leaf.shape[1:]), leaf.dtype) for name, leaf in zip(names, leaves, strict=True)}
    return {**_file(step, folder / "step.onnx", {**carry, **_inputs(fusion, 1)}), "start": "start.npz"}


def _file(
    function: Callable[[Arrays], Arrays], path: pathlib.Path, inputs: Mapping[str, tuple[tuple, np.dtype]]
) -> dict[str, Any]:
    """Writes one network; `inputs` are shapes and dtypes by name, with symbolic sizes as letters."""
    to_onnx, onnxruntime = _converter()
    small = {
        name: jax.ShapeDtypeStruct([2 if isinstance(n, str) else n for n in shape], dtype)
        for name, (shape, dtype) in inputs.items()
    }
    outputs = sorted(jax.eval_shape(function, small))

    def flat(*arrays: Any) -> tuple:
        out = function(dict(zip(inputs, arrays, strict=True)))
        return tuple(out[name] for name in outputs)

    specs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in inputs.values()]
    try:
        with _for_one_platform():
            model = to_onnx(
                flat,
                specs,
                model_name=path.stem,
                opset=OPSET,
                input_names=list(inputs),
                output_names=outputs,
            )
        data = model.SerializeToString()
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # jax2onnx may have mixed up types
    except Exception as error:  # jax2onnx has no type of error for an operator that it does not know
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise UserError(
            f"{path.stem} of this run cannot be written as ONNX: {reason}. Use --format=stablehlo."
        ) from error
    path.write_bytes(data)
    return {
        "file": path.name,
        "inputs": {name: [str(dtype), *shape] for name, (shape, dtype) in inputs.items()},
        "outputs": outputs,
        "bytes": path.stat().st_size,
    }


def _converter() -> tuple[Callable[..., Any], Any]:
    """jax2onnx's converter, and onnxruntime."""
    try:
        import jax2onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UserError('--format=onnx needs jax2onnx: pip install "jax2onnx>=0.13" onnxruntime.') from error
    return jax2onnx.to_onnx, onnxruntime


@contextlib.contextmanager
def _for_one_platform() -> Iterator[None]:
    """Traces what is made for XLA:CPU, which are plain operators: ONNX has none that asks for the platform, and
    onnxruntime has no window over the channels that come last."""
    before = lax.platform_dependent
    lax.platform_dependent = lambda *arguments, cpu, **_: cpu(*arguments)
    try:
        yield
    finally:
        lax.platform_dependent = before
