"""Reads the pickles of PyTorch's files: dicts, tuples, text, numbers and descriptions of tensors, and nothing else.

Python's own unpickler is not used. It calls what the file names, and a few hundred bytes can make it work for hours
(keys that are nested tuples) or fill the memory (a memo of two billion places).
"""

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from media.errors import UserError

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
# Opcodes that push their argument as it is.
_VALUES = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    )
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where a tensor's values are: the name of a block of `size` elements."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage: all numbers count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(number) is not int for number in numbers):
        raise ValueError("a tensor of something else than numbers")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered_dict(pairs: Any = ()) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        _set(out, key, value)
    return out


_ALLOWED: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
}


def load(stream: io.BytesIO) -> Any:
    """Reads one pickle from a stream, which is left after it.

    Raises:
      UserError: the pickle holds something else than tensors.
      ValueError, IndexError, TypeError, …: it is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(_last(stack, _TUPLES[name]))]
        elif name == "TUPLE":
            stack.append(tuple(_marked(stack)))
        elif name in ("SETITEM", "SETITEMS"):
            items = _pop(stack, 2) if name == "SETITEM" else _marked(stack)
            for key, value in zip(items[::2], items[1::2], strict=True):
                _set(stack[-1], key, value)
        elif name in ("APPEND", "APPENDS"):
            items = _pop(stack, 1) if name == "APPEND" else _marked(stack)
            stack[-1].extend(items)
        elif name == "GLOBAL":
            stack.append(_global(argument))
        elif name == "STACK_GLOBAL":
            stack.append(_global(" ".join(_pop(stack, 2))))
        elif name == "REDUCE":
            function, arguments = _pop(stack, 2)
            if not any(function is known for known in _ALLOWED.values()):
                raise ValueError("a call of something that is no function")
            stack.append(function(*arguments))
        elif name == "BUILD":
            _pop(stack, 1)  # attributes, such as the `_metadata` of a state dict
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {name}")
    raise ValueError("no end")


def _set(target: Any, key: Any, value: Any) -> None:
    if type(target) is not dict or not (type(key) is str or (type(key) is int and 0 <= key < 1 << 32)):
        raise ValueError(f"a {type(key).__name__} as a name")
    target[key] = value


def _last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count or any(value is _MARK for value in stack[-count:]):
        raise ValueError("an empty stack")
    return stack[-count:]


def _pop(stack: list[Any], count: int) -> list[Any]:
    values = _last(stack, count)
    del stack[-count:]
    return values


def _marked(stack: list[Any]) -> list[Any]:
    """Takes everything after the last mark from the stack, and the mark."""
    values: list[Any] = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


def _global(name: str) -> Any:
    module, _, attribute = name.partition(" ")
    if name in _ALLOWED:
        return _ALLOWED[name]
    if module == "torch" and attribute in _STORAGE_DTYPES:
        return np.dtype(_STORAGE_DTYPES[attribute])
    raise UserError(
        f"the file holds {module}.{attribute}, which is not a plain tensor: save the model's state_dict() instead"
    )


def _storage(pid: Any) -> Storage:
    # ("storage", storage class, key, location, number of elements[, view]); views have not been written since 2017.
    _, dtype, key, _, size = pid[:5]
    if not isinstance(dtype, np.dtype) or type(key) not in (str, int) or type(size) is not int:
        raise ValueError("a storage of something else than numbers")
    return Storage(str(key), dtype, size)
