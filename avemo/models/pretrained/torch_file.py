"""Reads a PyTorch state dict (`.pt`, `.pth`) into NumPy arrays without PyTorch, running none of the file's code.

Both formats are read: the zip archive of PyTorch ≥ 1.6, and the older stream of pickles in which the FaceNet and
DenseNet weights are published. The unpickler builds ordered dicts and tensors only; any other global in the file is an
error.
"""

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from media.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors as descriptions, which are filled once the storages have been read."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and name in _STORAGE_DTYPES:
            return np.dtype(_STORAGE_DTYPES[name])
        raise UserError(
            f"the file holds {module}.{name}, which is not a plain tensor: save the model's state_dict() instead"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        # ("storage", storage class, key, location, number of elements[, view]); views have not been written since 2017.
        _, dtype, key, _, size = pid[:5]
        return _Storage(str(key), dtype, int(size))


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name.

    Raises:
      UserError: the file is not a PyTorch file, is truncated, or holds anything but a flat dict of tensors.
    """
    try:
        state, storages = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        if not isinstance(state, dict):
            raise UserError(f"holds a {type(state).__name__}, not a state dict")
        return {name: _array(name, tensor, storages) for name, tensor in state.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError, struct.error,
        AttributeError, IndexError, UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a readable PyTorch state dict ({type(error).__name__}: {error}); download it again"
        ) from None


def _read_zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise UserError("a zip without data.pkl is not a PyTorch file")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError("big-endian tensors are not supported")
        state = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        prefix = f"{root}data/"
        storages = {n.removeprefix(prefix): archive.read(n) for n in archive.namelist() if n.startswith(prefix)}
    return state, storages


def _read_stream(path: Path) -> tuple[Any, dict[str, bytes]]:
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise UserError("not a PyTorch file")
        _Unpickler(file).load()  # byte order and type sizes of the writer
        state = _Unpickler(file).load()
        sizes = {t.storage.key: t.storage for t in state.values() if isinstance(t, _Tensor)}
        storages = {}
        for key in _Unpickler(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            if key not in sizes:
                raise UserError("holds a storage that no tensor names; save the model's state_dict() instead")
            storages[key] = file.read(count * sizes[key].dtype.itemsize)
    return state, storages


def _array(name: str, tensor: Any, storages: dict[str, bytes]) -> np.ndarray:
    if not isinstance(tensor, _Tensor):
        raise UserError(f"{name} is a {type(tensor).__name__}, not a tensor")
    dtype = tensor.storage.dtype
    data = storages.get(tensor.storage.key, b"")
    # The last element that the strides reach: a truncated or forged file must not be read past its end.
    reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)) + 1
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise UserError(f"tensor {name} has a negative offset, size or stride")
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, dtype)
    if len(data) < max(reach, tensor.storage.size) * dtype.itemsize:
        raise UserError(f"truncated at tensor {name}; download it again")
    flat = np.frombuffer(data, dtype)[tensor.offset :]
    strides = tuple(s * dtype.itemsize for s in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()
