"""Reads a TensorFlow.js graph model (`model.json` and its `.bin` shards) into NumPy arrays."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from media.errors import UserError

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?"}


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the constants of a graph model by name.

    Args:
      path: the `.json`; the `.bin` files that it names lie beside it.

    Raises:
      UserError: the file is not a graph model, a shard is missing or truncated, or a tensor is quantised or unknown.
    """
    manifest = _json(path).get("weightsManifest")
    if not isinstance(manifest, list):
        raise UserError(f"{path}: no weightsManifest: not a TensorFlow.js graph model")
    try:
        return _tensors(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path}: not a readable TensorFlow.js model ({type(error).__name__}: {error}); download it again"
        ) from None


def _tensors(path: Path, manifest: list[Any]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    names = [name for group in manifest for name in group["paths"]]
    if len(set(names)) != len(names):
        raise ValueError("a file of weights is named twice")
    for group in manifest:
        shards = [path.with_name(name) for name in group["paths"]]
        for shard in shards:
            if not shard.is_file():
                raise UserError(f"{path}: its weights {shard.name} are missing: put them beside it")
        data = b"".join(shard.read_bytes() for shard in shards)
        at = 0
        for weight in group["weights"]:
            name, shape = str(weight["name"]), tuple(weight["shape"])
            if any(type(side) is not int or side < 0 for side in shape):
                raise ValueError(f"tensor {name} has shape {list(shape)}")
            if "quantization" in weight or weight["dtype"] not in _DTYPES:
                raise UserError(f"{path}: tensor {name} is quantised or {weight['dtype']}, which is not supported")
            dtype = np.dtype(_DTYPES[weight["dtype"]])
            size = math.prod(shape) * dtype.itemsize
            if at + size > len(data):
                raise UserError(f"{shards[-1]}: truncated at tensor {name}; download it again")
            tensors[name] = np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape)
            at += size
        if at != len(data):
            raise UserError(f"{shards[-1]}: {len(data) - at} bytes more than {path.name} lists: not the same model")
    return tensors


def nodes(path: Path) -> list[dict[str, Any]]:
    """Returns the graph's operations in topological order, as in the JSON; for the parity check."""
    return [node for node in _json(path)["modelTopology"]["node"] if node["op"] != "Const"]


def _json(path: Path) -> dict[str, Any]:
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a TensorFlow.js model.json ({error})") from None
    if not isinstance(model, dict):
        raise UserError(f"{path}: not a TensorFlow.js model.json")
    return model
