"""Reads a TensorFlow checkpoint into NumPy arrays without TensorFlow: the old single file (V1) and the bundle (V2).

Both use LevelDB's sorted table: blocks of prefix-compressed keys, found through an index block and a footer. V1
(`vggish_model.ckpt`) holds one `SavedTensorSlices` message per tensor. V2 (`x.index`, `x.data-00000-of-00001`) holds
one `BundleEntryProto` per tensor, which points into the data files. Only whole tensors of float32 are read. TensorFlow
writes both without compression.
"""

import glob
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from media.errors import UserError

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_DT_FLOAT = 1
_LONGEST = 4096  # bytes of a tensor's name
_NAMES = 16  # names share their beginnings: together they have at most so many times the file's bytes
_REPEATED = 1 << 20  # values of one field; TensorFlow packs long runs of numbers into one
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of a checkpoint by name; other dtypes (step counters) are left out.

    Args:
      path: a V1 file, or the `.index` file of a V2 checkpoint, or the common prefix of its files.

    Raises:
      UserError: the file is not a checkpoint, is truncated, or has partitioned tensors.
    """
    index = path if path.suffix == ".index" else path.with_name(path.name + ".index")
    bundle = index if not path.is_file() or path.suffix == ".index" else None
    source = bundle or path
    if not source.is_file():
        raise UserError(f"{path}: no such checkpoint: give the .ckpt file or, for a newer checkpoint, the .index file")
    try:
        table = dict(_table(source.read_bytes()))
        return _bundle(table, source) if bundle else _slices(table)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (IndexError, struct.error, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(
            f"{source}: not a readable TensorFlow checkpoint ({type(error).__name__}: {error}); download it again"
        ) from None


def _bundle(table: dict[bytes, memoryview], index: Path) -> dict[str, np.ndarray]:
    shards = _first(_fields(table.pop(b"")), 1, 1)
    stem = index.name.removesuffix(".index")
    tensors: dict[str, np.ndarray] = {}
    left = sum(file.stat().st_size for file in index.parent.glob(f"{glob.escape(stem)}.data-*"))
    for key, value in table.items():
        name = key.decode()
        entry = _fields(value)
        if 7 in entry:
            raise UserError(f"tensor {name} is partitioned, which is not supported")
        if _first(entry, 1, 0) != _DT_FLOAT:
            continue
        shape = _shape(entry)
        offset, size = _first(entry, 4, 0), _first(entry, 5, 0)
        data = index.with_name(f"{stem}.data-{_first(entry, 3, 0):05d}-of-{shards:05d}")
        if not data.is_file():
            raise UserError(f"its data file {data.name} is missing")
        if offset + size > data.stat().st_size:
            raise UserError(f"{data.name} is truncated at tensor {name}; download it again")
        left -= size
        if left < 0:
            raise ValueError("its tensors are longer than its data files")
        tensors[name] = np.fromfile(data, "<f4", size // 4, offset=offset).reshape(shape)
    return tensors


def _slices(table: dict[bytes, memoryview]) -> dict[str, np.ndarray]:
    if b"" not in table:
        raise UserError("no table of contents: not a TensorFlow V1 checkpoint")
    contents = _fields(_first(_fields(table.pop(b"")), 1, b""))
    shapes = {}
    for meta in contents.get(1, []):
        fields = _fields(meta)
        if _first(fields, 3, 0) == _DT_FLOAT:
            shapes[bytes(_first(fields, 1, b"")).decode()] = _shape(fields)
    tensors = {}
    for value in table.values():
        saved = _fields(_first(_fields(value), 2, b""))
        name = bytes(_first(saved, 1, b"")).decode()
        if name not in shapes:
            continue
        if name in tensors:
            raise UserError(f"tensor {name} is partitioned, which is not supported")
        floats = _fields(_first(saved, 3, b"")).get(5, [])
        # `repeated float` is written packed, as runs of little-endian values; single values may be unpacked.
        tensors[name] = np.frombuffer(b"".join(bytes(run) for run in floats), "<f4").reshape(shapes[name])
    for name in shapes:
        if name not in tensors:
            raise UserError(f"tensor {name} is listed but missing; download it again")
    return tensors


def _shape(fields: dict[int, list]) -> tuple[int, ...]:
    dims = _fields(_first(fields, 2, b"")).get(2, [])
    return tuple(_first(_fields(dim), 1, 0) for dim in dims)


# LevelDB table


def _table(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yields the (key, value) pairs of a sorted table, in order."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise UserError("not a TensorFlow checkpoint, or a truncated one (no table footer); download it again")
    view = memoryview(data)
    footer = view[-_FOOTER:]
    at = 0
    for _ in range(2):  # the handle of the meta index, which is not needed
        _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    left, names = len(data), 0
    for _, handle in _block(view, offset, size):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        left -= size
        for key, value in _block(view, offset, size):
            names += len(key)
            if left < 0 or names > _NAMES * len(data):
                raise ValueError("its blocks or names are longer than the file")
            yield key, value


def _block(view: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    if view[offset + size] != 0:
        raise UserError("compressed tables are not supported (TensorFlow writes none)")
    block = view[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restarts + 1)
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or shared + unshared > _LONGEST or at + unshared + length > end:
            raise ValueError("a name or value is longer than its block")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + length]
        at += length


# Protocol buffers


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Returns the variable-length integer at `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(message: memoryview | bytes) -> dict[int, list]:
    """Returns a message's values by field number: integers, or views of bytes, strings and sub-messages."""
    message = memoryview(message)
    fields: dict[int, list] = {}
    at = 0
    value: Any
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            width = 4 if wire == _FIXED32 else 8
            value, at = message[at : at + width], at + width
        elif wire == _BYTES:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(message):
            raise ValueError("a field is longer than its message")
        fields.setdefault(number, []).append(value)
        if len(fields[number]) > _REPEATED:
            raise ValueError(f"field {number} is repeated too often")
    return fields


def _first(fields: dict[int, list], number: int, default: int | bytes) -> Any:
    """Returns the single value of a field; protocol buffers omit default values."""
    return fields.get(number, [default])[0]
