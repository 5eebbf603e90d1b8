"""Reads the tensors of a TensorFlow Lite model into NumPy arrays, dequantised, without TensorFlow.

A FlatBuffer consists of tables of fields found through offsets. Only the few fields named here are read.
Schema: tensorflow/lite/schema/schema.fbs.
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np

from media.errors import UserError

_SHARED = 3  # writers let tables share short vectors, such as shapes
_TABLE = 8  # bytes of a table that is not empty, with its place in a vector
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "<u1", 4: "<i8", 6: "?", 7: "<i2", 9: "<i1"}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operation of the graph: `code` is the schema's BuiltinOperator number, the others are tensor indices."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model's main graph: the names of all tensors, the constants dequantised to float32, and the operations."""

    names: tuple[str, ...]
    constants: dict[int, np.ndarray]
    operators: tuple[Operator, ...]


class _File:
    """The bytes of a file, and how many of them may still be read as vectors.

    Offsets may point to one vector again and again, so that a short file claims to be a long one.
    """

    def __init__(self, data: bytes):
        self.data, self.left = data, _SHARED * len(data)

    def spend(self, size: int) -> None:
        """Counts the bytes of a vector.

        Raises:
          ValueError: the vectors are longer than the file.
        """
        self.left -= size
        if self.left < 0:
            raise ValueError("its parts are longer than the file")


class _Table:
    """A FlatBuffer table: reads fields by number, each by its kind in the schema."""

    def __init__(self, file: _File, at: int):
        self.file, self.data, self.at = file, file.data, at
        self.vtable = at - struct.unpack_from("<i", self.data, at)[0]
        self.vtable_size = struct.unpack_from("<H", self.data, self.vtable)[0]

    def _position(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot >= self.vtable_size:
            return None
        offset = struct.unpack_from("<H", self.data, self.vtable + slot)[0]
        return self.at + offset if offset else None

    def scalar(self, field: int, code: str, default: int = 0) -> int:
        position = self._position(field)
        return default if position is None else struct.unpack_from(f"<{code}", self.data, position)[0]

    def _target(self, field: int) -> int | None:
        position = self._position(field)
        return None if position is None else position + struct.unpack_from("<I", self.data, position)[0]

    def table(self, field: int) -> "_Table | None":
        target = self._target(field)
        return None if target is None else _Table(self.file, target)

    def tables(self, field: int) -> "list[_Table]":
        target = self._target(field)
        if target is None:
            return []
        (count,) = struct.unpack_from("<I", self.data, target)
        self.file.spend(_TABLE * count)
        positions = range(target + 4, target + 4 + 4 * count, 4)
        return [_Table(self.file, p + struct.unpack_from("<I", self.data, p)[0]) for p in positions]

    def array(self, field: int, dtype: str) -> np.ndarray:
        target = self._target(field)
        if target is None:
            return np.zeros(0, dtype)
        (count,) = struct.unpack_from("<I", self.data, target)
        self.file.spend(count * np.dtype(dtype).itemsize)
        return np.frombuffer(self.data, dtype, count, target + 4)

    def string(self, field: int) -> str:
        return self.array(field, "<u1").tobytes().decode()


def read_model(path: Path) -> Model:
    """Returns the main graph of a `.tflite` file.

    Raises:
      UserError: the file is not a TensorFlow Lite model, or is truncated.
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise UserError(f"{path}: not a TensorFlow Lite model (no TFL3 mark)")
    try:
        model = _Table(_File(data), struct.unpack_from("<I", data, 0)[0])
        codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in model.tables(1)]
        graph = model.tables(2)[0]
        buffers = model.tables(4)
        tensors = graph.tables(0)
        constants = {}
        for i, tensor in enumerate(tensors):
            raw = buffers[tensor.scalar(2, "I")].array(0, "<u1")
            if raw.size and tensor.scalar(1, "b") in _DTYPES:
                constants[i] = _dequantised(tensor, raw)
        operators = tuple(
            Operator(
                codes[op.scalar(0, "I")],
                tuple(op.array(1, "<i4").tolist()),
                tuple(op.array(2, "<i4").tolist()),
            )
            for op in graph.tables(3)
        )
        return Model(tuple(t.string(3) for t in tensors), constants, operators)
    except (struct.error, ValueError, IndexError, OverflowError, TypeError, MemoryError) as error:
        raise UserError(
            f"{path}: not a readable TensorFlow Lite model ({type(error).__name__}: {error}); download it again"
        ) from None


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the constants of a `.tflite` file by name; float and quantised ones are float32."""
    model = read_model(path)
    return {model.names[i]: value for i, value in model.constants.items()}


def _dequantised(tensor: _Table, raw: np.ndarray) -> np.ndarray:
    shape = tuple(tensor.array(0, "<i4").tolist())
    values = raw.view(_DTYPES[tensor.scalar(1, "b")]).reshape(shape)
    quantisation = tensor.table(4)
    scale = quantisation.array(2, "<f4") if quantisation else np.zeros(0, "<f4")
    if quantisation is None or not scale.size:
        return values.astype(np.float32) if values.dtype == np.float16 else values
    zero = quantisation.array(3, "<i8")
    zero = zero if zero.size else np.zeros(scale.size, "<i8")
    along = [1] * len(shape)
    if scale.size > 1:
        dimension = quantisation.scalar(6, "i")
        if shape[dimension] != scale.size:
            raise ValueError(f"{scale.size} scales for an array {list(shape)}")
        along[dimension] = scale.size
    with np.errstate(all="ignore"):  # values that are not finite are refused by their tensor's name
        return ((values.astype(np.int64) - zero.reshape(along)).astype(np.float32)) * scale.reshape(along)
