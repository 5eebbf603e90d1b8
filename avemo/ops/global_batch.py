"""Which rows of the global batch a forward pass holds: their numbers, for dropout, and weights, for batch statistics.

A device's share is one piece of the global batch, and under gradient accumulation it is cut into several. What depends
on an example's place in the batch, or on the batch as a whole, asks here while it is traced, so that networks need no
further arguments.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from avemo.ops import device_axis


@dataclasses.dataclass(frozen=True)
class _Held:
    """`piece` of `pieces` micro-batches a device; rows of each part, and their weights."""

    piece: jax.Array | int = 0
    pieces: int = 1
    sizes: tuple[int, ...] | None = None
    weights: jax.Array | None = None


_HELD: contextvars.ContextVar[_Held | None] = contextvars.ContextVar("rows", default=None)


def _now() -> _Held:
    return _HELD.get() or _Held()


@contextlib.contextmanager
def _set(**changes: object) -> Iterator[None]:
    token = _HELD.set(dataclasses.replace(_now(), **changes))
    try:
        yield
    finally:
        _HELD.reset(token)


def micro_batch(piece: jax.Array | int, pieces: int) -> contextlib.AbstractContextManager:
    """What is traced inside sees micro-batch `piece` of the `pieces` that this device's rows are cut into, in order."""
    return _set(piece=piece, pieces=pieces)


def held(sizes: Sequence[int], weights: Sequence[jax.Array | None] | None = None) -> contextlib.AbstractContextManager:
    """What is traced inside sees several parts of a batch joined to one, part after part.

    Args:
      sizes: rows of each part in this piece.
      weights: float32 or bool `[rows]` of each part, 0 for padding; None where a part, or no part, has any.
    """
    if weights is None or all(weight is None for weight in weights):
        joined = None
    else:
        joined = jnp.concatenate(
            [
                jnp.ones(size, jnp.float32) if weight is None else weight.astype(jnp.float32)
                for size, weight in zip(sizes, weights, strict=True)
            ]
        )
    return _set(sizes=tuple(sizes), weights=joined)


def weights(count: int) -> jax.Array | None:
    """float32 `[count]` of the rows at hand, 0 for padding; None where all count, or where `held` set no such rows."""
    found = _now().weights
    return found if found is not None and len(found) == count else None


def numbers(count: int) -> jax.Array:
    """int32 `[count]`: a number for each row, the same on any number of devices and micro-batches.

    Piece p of P has rows p·n … (p + 1)·n of each part, whose numbers follow those of the part before. Outside a mapped
    step there is one device.
    """
    now = _now()
    sizes = now.sizes if now.sizes is not None and sum(now.sizes) == count else (count,)
    piece, pieces = device_axis.index() * now.pieces + now.piece, device_axis.count() * now.pieces
    out, begin = [], 0
    for size in sizes:
        out.append(begin + piece * size + jnp.arange(size, dtype=jnp.int32))
        begin += size * pieces
    return jnp.concatenate(out)
