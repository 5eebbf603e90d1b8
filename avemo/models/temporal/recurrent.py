"""Recurrent models: GRU, LSTM and minGRU cells, and layers of them in one or both directions.

The cells hold the equations; how they run fast is in `avemo.ops.recurrence` and `avemo.ops.gru`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.ops.dropout import Dropout
from avemo.ops.gru import gru
from avemo.ops.recurrence import LOG_ZERO, Carry, Cell, scan_frames, scan_log_space
from media.errors import UserError, unknown


class GRU(Cell):
    """Gated recurrent unit, parameters as `nn.GRUCell` (which is `torch.nn.GRU` with r and z sharing one bias).

    r = σ(W_ir x + b_r + W_hr h), z = σ(W_iz x + b_z + W_hz h), n = tanh(W_in x + b_in + r ∘ (W_hn h + b_hn)),
    h' = (1 − z) ∘ n + z ∘ h.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Carry = None
    ) -> tuple[jax.Array, Carry]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, carry [B, H])."""
        del train
        inputs = self.product(x, *self.gates("i", "rzn", x.shape[-1], biases="rzn"))
        kernel, bias = self.gates("h", "rzn", self.features, biases="n")
        start = self.zeros(mask) if initial_carry is None else initial_carry
        time_major = inputs.swapaxes(0, 1), mask.swapaxes(0, 1)[:, :, None]
        hidden, carry = gru(*time_major, kernel.astype(self.dtype), bias, start, self.reverse)
        return hidden.swapaxes(0, 1), carry


class LSTM(Cell):
    """Long short-term memory, parameters as `nn.OptimizedLSTMCell` (`torch.nn.LSTM` with one bias per gate).

    i, f, o = σ(W_i* x + W_h* h + b_*), g = tanh(W_ig x + W_hg h + b_g), c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c').
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Carry = None
    ) -> tuple[jax.Array, Carry]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, carry (c, h), each [B, H])."""
        del train
        inputs = self.product(x, *self.gates("i", "ifgo", x.shape[-1]))
        kernel, bias = self.gates("h", "ifgo", self.features, biases="ifgo")

        def frame(carry: Carry, now: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            (c, h), (projected, valid) = carry, now
            i, f, g, o = jnp.split(projected + self.product(h, kernel, bias), 4, axis=-1)
            new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            c, h = jnp.where(valid, new_c, c), jnp.where(valid, new_h, h)
            return (c, h), h

        start = (self.zeros(mask), self.zeros(mask)) if initial_carry is None else initial_carry
        carry, hidden = scan_frames(frame, start, inputs, mask, self.reverse)
        return hidden, carry


class MinGRU(Cell):
    """minGRU, arXiv 2410.01201: gate and candidate see the input alone, so the recurrence is an associative scan.

    z = σ(W_z x + b_z), h̃ = g(W_h x + b_h) with g(x) = x + ½ for x ≥ 0, else σ(x) (positive, for log space);
    h' = (1 − z) ∘ h + z ∘ h̃, computed in log space as in the paper. Starts from h = 0.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Carry = None
    ) -> tuple[jax.Array, Carry]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, positive; carry [B, H])."""
        del train
        kernel, bias = self.gates("i", "zh", x.shape[-1], biases="zh")
        k, v = jnp.split(self.product(x, kernel, bias), 2, axis=-1)
        valid = mask[:, :, None]
        log_keep = jnp.where(valid, -jax.nn.softplus(k), 0.0)
        positive = v >= 0
        log_g = jnp.where(positive, jnp.log(jnp.where(positive, v, 0.0) + 0.5), -jax.nn.softplus(-v))
        log_new = jnp.where(valid, log_g - jax.nn.softplus(-k), LOG_ZERO)
        start = self.zeros(mask) if initial_carry is None else initial_carry
        return scan_log_space(log_keep, log_new, start, self.reverse)


CELLS = {"gru": GRU, "lstm": LSTM, "mingru": MinGRU}


class Recurrent(nn.Module):
    """One or more recurrent layers, each with a forward and, if bidirectional, a backward cell.

    Attributes:
      features: H; a bidirectional layer gives each direction half of it, so that widths are comparable.
      cell: "gru", "lstm" or "mingru".
      num_layers: number of stacked layers.
      bidirectional: also read from the end; needs the whole sequence and has no carry.
      dropout: rate between layers.
      dtype: dtype of the matrix products.
    """

    features: int = 64
    cell: str = "gru"
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Carry = None
    ) -> tuple[jax.Array, Carry]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H], carry: a tuple with one entry per layer, or None)."""
        if self.cell not in CELLS:
            raise unknown("recurrent cell", self.cell, CELLS)
        if self.bidirectional and (initial_carry is not None or self.features % 2):
            raise UserError("a bidirectional model has no carry and needs an even `features`: it cannot run in chunks")
        carries = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = Dropout(self.dropout, deterministic=not train)(x)
            start = None if initial_carry is None else initial_carry[layer]
            width = self.features // 2 if self.bidirectional else self.features
            hidden, carry = self._cell(width, layer, False)(x, mask, train, start)
            if self.bidirectional:
                backward, _ = self._cell(width, layer, True)(x, mask, train)
                hidden = jnp.concatenate([hidden, backward], axis=-1)
            carries.append(carry)
            x = hidden
        return x, None if self.bidirectional else tuple(carries)

    def step(self, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        """One frame: (carry, x [B, D]) -> (carry, hidden [B, H]); `carry=None` starts a sequence."""
        hidden, carry = self(x[:, None, :], jnp.ones((x.shape[0], 1), bool), initial_carry=carry)
        return carry, hidden[:, 0]

    @nn.nowrap
    def _cell(self, width: int, layer: int, reverse: bool) -> Cell:
        name = f"{'backward' if reverse else 'forward'}_{layer}"
        return CELLS[self.cell](width, reverse=reverse, dtype=self.dtype, name=name)


class Identity(nn.Module):
    """No model of time: hidden = x. The carry is an empty tuple, so it streams like the others."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Carry = None
    ) -> tuple[jax.Array, Carry]:
        """Returns (x, ())."""
        del mask, train, initial_carry
        return x, ()

    def step(self, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        """One frame: (carry, x [B, D]) -> ((), x)."""
        del carry
        return (), x
