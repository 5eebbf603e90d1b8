"""Temporal models over a joint sequence, by name.

Every entry maps `(x [B, T, D], mask [B, T] bool, train, initial_carry=None) -> (hidden [B, T, H], carry)`. `mask` is
True on real frames; padding comes at the end and changes neither a real frame's output nor the carry. If `carry` is not
None, running a sequence in chunks, each from the carry of the last, equals running it whole; `step(carry, x [B, D])`
runs a chunk of one frame. If it is None (`bigru`, `transformer`, a `tcn` that is not causal), the entry needs the whole
sequence.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from avemo.models.from_config import construct
from avemo.models.temporal.convolution import TCN
from avemo.models.temporal.recurrent import GRU, LSTM, Identity, MinGRU, Recurrent
from avemo.models.temporal.state_space import StateSpace
from avemo.models.temporal.transformer import Transformer
from media.registry import Registry

TEMPORALS: Registry[Callable] = Registry("temporal model")
TEMPORALS.register("gru")(partial(Recurrent, cell="gru"))
TEMPORALS.register("bigru")(partial(Recurrent, cell="gru", bidirectional=True))
TEMPORALS.register("lstm")(partial(Recurrent, cell="lstm"))
TEMPORALS.register("mingru")(partial(Recurrent, cell="mingru"))
TEMPORALS.register("tcn")(TCN)
TEMPORALS.register("transformer")(Transformer)
TEMPORALS.register("s5")(StateSpace)
TEMPORALS.register("none")(Identity)

__all__ = [
    "GRU",
    "LSTM",
    "TCN",
    "TEMPORALS",
    "Identity",
    "MinGRU",
    "Recurrent",
    "StateSpace",
    "Transformer",
    "build_temporal",
]


def build_temporal(
    name: str, arguments: Mapping[str, Any] | None = None, /, *, dtype: Any = jnp.float32, **context: Any
) -> nn.Module:
    """Builds the temporal model `name` with the fields `arguments`; an unknown name or field is a `UserError`."""
    return construct(f"temporal model {name!r}", TEMPORALS[name], arguments, dtype=dtype, **context)
