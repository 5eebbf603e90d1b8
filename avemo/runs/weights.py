"""Weights as one file, `weights.npz`, and the fingerprint that identifies them."""

import hashlib
import io
from typing import Any

import jax
import numpy as np
from etils import epath

from media.errors import UserError
from media.zip_files import read_npz

FILENAME = "weights.npz"
_DEPTH = 50  # modules within modules


def fingerprint(variables: Any) -> str:
    """SHA-256 (first 16 hex digits) over the names, shapes and bytes of all arrays."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(variables), key=lambda item: str(item[0])):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def halved(variables: Any) -> Any:
    """The variables with `params` rounded to float16 precision, still float32; statistics have too wide a range."""
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float16).astype(np.float32), variables["params"])
    return {**variables, "params": rounded}


def pack(step: int, variables: Any, half: bool = False) -> bytes:
    """Returns the bytes of `weights.npz`: one array per leaf under its path, `params/trunk/…`, and `step`.

    The same weights give the same bytes, because the file holds no dates. With `half`, `params` are stored as float16;
    `read` makes them float32 again, so that nothing else knows of it.

    Raises:
      UserError: a leaf has a type that NumPy's format does not support (bfloat16).
    """
    arrays: dict[str, Any] = {"step": np.asarray(step, np.int64)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name, array = "/".join(str(entry.key) for entry in path), np.asarray(leaf)
        if array.dtype.kind not in "biuf":
            raise UserError(f"weight {name} is {array.dtype}: only float and integer weights can be written.")
        if half and name.startswith("params/"):
            array = array.astype(np.float16)
        arrays[name] = array
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read(path: str | epath.Path) -> tuple[int, dict[str, Any]]:
    """Returns `(step, variables)` from a file that `pack` made.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with epath.Path(path).open("rb") as file:
            stored = read_npz(file)
        step = int(stored.pop("step"))
        return step, _tree({name: _single(array) for name, array in stored.items()})
    except Exception as error:  # the remedy is the same whatever is broken inside
        raise UserError(f"{path} cannot be read ({type(error).__name__}): install the release again.") from error


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _tree(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Nests arrays by the parts of their names."""
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        if len(parents) > _DEPTH:
            raise ValueError(name)
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        if leaf in node:
            raise ValueError(name)
        node[leaf] = array
    return variables
