"""Reads a PyTorch state dict (`.pt`, `.pth`) into NumPy arrays without PyTorch, running none of the file's code.

Both formats are read: the zip archive of PyTorch ≥ 1.6, and the older stream of pickles in which the FaceNet and
DenseNet weights are published. What the pickles say of sizes is checked against the bytes that are there.
"""

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from avemo.models.pretrained.torch_pickle import Tensor, load
from media.errors import UserError
from media.zip_files import BROKEN, open_zip

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SHARED = 2  # tensors may share their values (tied weights): together they have at most so many times the file's bytes


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name.

    Raises:
      UserError: the file is not a PyTorch file, is truncated, or holds anything but a flat dict of tensors.
    """
    file = io.BytesIO(path.read_bytes())
    size = len(file.getbuffer())
    try:
        state, storages = _read_zip(file, size) if zipfile.is_zipfile(file) else _read_stream(file)
        if not isinstance(state, dict):
            raise UserError(f"holds a {type(state).__name__}, not a state dict")
        _check_total(state, size)
        return {str(name): _array(name, tensor, storages) for name, tensor in state.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (*BROKEN, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: not a readable PyTorch state dict ({type(error).__name__}: {error}); download it again"
        ) from None


def _read_zip(file: io.BytesIO, size: int) -> tuple[Any, dict[str, bytes]]:
    with open_zip(file) as archive:
        entries = archive.infolist()
        # PyTorch compresses nothing, so the files are no longer than the archive.
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its files are longer than the archive")
        files = {entry.filename: archive.read(entry) for entry in entries}
    pickles = [name for name in files if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise UserError("a zip without data.pkl is not a PyTorch file")
    root = pickles[0].removesuffix("data.pkl")
    if files.get(f"{root}byteorder", b"little") != b"little":
        raise UserError("big-endian tensors are not supported")
    prefix = f"{root}data/"
    storages = {name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)}
    return load(io.BytesIO(files[pickles[0]])), storages


def _read_stream(file: io.BytesIO) -> tuple[Any, dict[str, bytes]]:
    file.seek(0)
    if load(file) != _LEGACY_MAGIC or load(file) != _LEGACY_PROTOCOL:
        raise UserError("not a PyTorch file")
    load(file)  # byte order and type sizes of the writer
    state = load(file)
    sizes = {t.storage.key: t.storage for t in state.values() if isinstance(t, Tensor)}
    storages = {}
    for key in load(file):
        (count,) = struct.unpack("<q", file.read(8))
        if key not in sizes:
            raise UserError("holds a storage that no tensor names; save the model's state_dict() instead")
        storages[key] = file.read(max(0, count) * sizes[key].dtype.itemsize)
    return state, storages


def _check_total(state: dict[Any, Any], size: int) -> None:
    total = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in state.values() if isinstance(t, Tensor))
    if total > _SHARED * size:
        raise ValueError(f"tensors of {total} bytes in a file of {size}")


def _array(name: str, tensor: Any, storages: dict[str, bytes]) -> np.ndarray:
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name} is a {type(tensor).__name__}, not a tensor")
    dtype = tensor.storage.dtype
    data = storages.get(tensor.storage.key, b"")
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise UserError(f"tensor {name} has a negative offset, size or stride")
    # The last element that the strides reach: a truncated or forged file must not be read past its end.
    reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)) + 1
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, dtype)
    if len(data) < max(reach, tensor.storage.size) * dtype.itemsize:
        raise UserError(f"truncated at tensor {name}; download it again")
    flat = np.frombuffer(data, dtype)[tensor.offset :]
    strides = tuple(s * dtype.itemsize for s in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()
