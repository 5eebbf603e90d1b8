"""The rows of the global batch in a forward pass: their numbers, for dropout, and weights, for batch statistics.

Each device holds one piece of the global batch, and gradient accumulation cuts that piece into several. A layer that
depends on an example's position in the batch, or on the batch as a whole, asks here while it is traced, so networks
need no further arguments.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from avemo.ops import device_axis


@dataclasses.dataclass(frozen=True)
class _Held:
    """Micro-batch `piece` of `pieces` per device; rows of each source of the batch, and the weights of all rows."""

    piece: jax.Array | int = 0
    pieces: int = 1
    sizes: tuple[int, ...] | None = None
    weights: jax.Array | None = None


_HELD: contextvars.ContextVar[_Held | None] = contextvars.ContextVar("held", default=None)


def _now() -> _Held:
    return _HELD.get() or _Held()


@contextlib.contextmanager
def _set(held: _Held) -> Iterator[None]:
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)


def micro_batch(piece: jax.Array | int, pieces: int) -> contextlib.AbstractContextManager:
    """Code traced inside sees micro-batch `piece` of the `pieces` that this device's rows are cut into, in order."""
    return _set(dataclasses.replace(_now(), piece=piece, pieces=pieces))


def concatenation(
    sizes: Sequence[int], weights: Sequence[jax.Array | None] | None = None
) -> contextlib.AbstractContextManager:
    """Code traced inside sees the rows of several sources (labelled faces, triplets, …), one source after another.

    Args:
      sizes: rows of each source in this piece.
      weights: float32 or bool `[rows]` of each source, 0 for padding; None for a source, or for all, without padding.
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
    return _set(dataclasses.replace(_now(), sizes=tuple(sizes), weights=joined))


def row_weights(count: int) -> Float[Array, "b"] | None:
    """Returns the float32 weights of the rows at hand, 0 for padding.

    None if every row counts, or if `count` is not the number of rows that `concatenation` set.
    """
    found = _now().weights
    return found if found is not None and len(found) == count else None


def row_numbers(count: int) -> Int[Array, "b"]:
    """Returns an int32 number for each row, the same on any number of devices and micro-batches.

    Piece p of P holds rows p·n … (p + 1)·n of each source. A source's numbers follow those of the source before it.
    """
    now = _now()
    sizes = now.sizes if now.sizes is not None and sum(now.sizes) == count else (count,)
    piece, pieces = device_axis.index() * now.pieces + now.piece, device_axis.count() * now.pieces
    out, begin = [], 0
    for size in sizes:
        out.append(begin + piece * size + jnp.arange(size, dtype=jnp.int32))
        begin += size * pieces
    return jnp.concatenate(out)
