"""State-space model: a diagonal linear recurrence over the sequence, by a parallel scan."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from avemo.ops.dropout import Dropout
from avemo.ops.layer_norm import LayerNorm
from avemo.ops.linear import Dense
from media.errors import UserError

Complex = tuple[jax.Array, jax.Array]  # real and imaginary part, float32


def _times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _after(earlier: tuple[Complex, Complex], later: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
    """Composes h -> a h + b of an earlier stretch of frames and of a later one."""
    (a, b), (c, d) = earlier, later
    real, imaginary = _times(c, b)
    return _times(c, a), (real + d[0], imaginary + d[1])


def scan(decay: Complex, inputs: Complex, start: Complex) -> Complex:
    """States h_t = a_t ∘ h_{t−1} + b_t of `decay` a and `inputs` b `[B, T, N]`, from `start` `[B, N]`."""
    first = _times((decay[0][:, 0], decay[1][:, 0]), start)
    inputs = inputs[0].at[:, 0].add(first[0]), inputs[1].at[:, 0].add(first[1])
    return jax.lax.associative_scan(_after, (decay, inputs), axis=1)[1]


class Diagonal(nn.Module):
    """The state space of one layer: h' = λ h + B x, y = 2 Re(C h) + d ∘ x, discretised by a step Δ per state.

    S5 (Smith et al., arXiv 2208.04933) with the initial λ_n = −½ + iπn of S4D-Lin (arXiv 2206.11893), zero-order hold:
    λ̄ = exp(λ Δ), B̄ = (λ̄ − 1) / λ · B. Half of the conjugate pairs are kept, hence the 2 Re.

    Attributes:
      features: width H of input and output.
      states: N complex states.
      slowest, fastest: Δ is drawn between them, log-uniformly, per frame; 1 / (½ Δ) frames are the memory of a state.
    """

    features: int
    states: int
    slowest: float = 1e-3
    fastest: float = 0.3

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, start: Complex) -> tuple[jax.Array, Complex]:
        """(x [B, T, H] float32, mask [B, T], state [B, N]) -> (y [B, T, H], the state after the last real frame)."""
        shape, rows = (self.states,), (self.features, self.states)
        span = math.log(self.slowest), math.log(self.fastest)
        step = jnp.exp(
            self.param("log_step", lambda key: jax.random.uniform(key, shape, minval=span[0], maxval=span[1]))
        )
        rate = jnp.exp(self.param("log_rate", lambda _: jnp.full(shape, math.log(0.5))))
        turn = self.param("frequency", lambda _: math.pi * jnp.arange(self.states, dtype=jnp.float32))
        into, out = nn.initializers.lecun_normal(), nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
        b = self.param("b_real", into, rows), self.param("b_imaginary", into, rows)
        c = self.param("c_real", out, rows), self.param("c_imaginary", out, rows)
        skip = self.param("skip", nn.initializers.normal(1.0), (self.features,))

        size, angle = jnp.exp(-rate * step), turn * step
        decay = size * jnp.cos(angle), size * jnp.sin(angle)
        # (λ̄ − 1) / λ with λ = −rate + i·turn
        norm = rate * rate + turn * turn
        hold = _times((decay[0] - 1.0, decay[1]), (-rate / norm, -turn / norm))
        drive = x @ b[0], x @ b[1]
        driven = _times(tuple(jnp.broadcast_to(v, drive[0].shape) for v in hold), drive)  # type: ignore[arg-type]
        # Outside the mask a state stays as it is: padding changes nothing.
        real = mask[:, :, None]
        kept = jnp.where(real, decay[0][None, None], 1.0), jnp.where(real, decay[1][None, None], 0.0)
        states = scan(kept, (jnp.where(real, driven[0], 0.0), jnp.where(real, driven[1], 0.0)), start)
        y = 2.0 * (states[0] @ c[0].T - states[1] @ c[1].T) + x * skip[None, None]
        return y, (states[0][:, -1], states[1][:, -1])


class StateSpace(nn.Module):
    """Layers of a diagonal state space, each with pre-norm, GELU, a gate and a residual, as in S5.

    Attributes:
      features: H.
      states: complex states of a layer.
      num_layers: layers.
      bidirectional: also run from the end; needs the whole sequence and has no carry.
      dropout: rate after each layer.
      dtype: dtype of the dense layers; the recurrence is float32.
    """

    features: int = 64
    states: int = 32
    num_layers: int = 2
    bidirectional: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, train: bool = False, initial_carry: Any = None
    ) -> tuple[jax.Array, Any]:
        """(x [B, T, D], mask [B, T]) -> (hidden [B, T, H] float32, carry: the state of each layer, or None)."""
        if self.bidirectional and initial_carry is not None:
            raise UserError("a bidirectional state-space model has no carry: it cannot run in chunks")
        x = Dense(self.features, dtype=self.dtype, name="project")(x).astype(jnp.float32)
        zero = jnp.zeros((x.shape[0], self.states), jnp.float32)
        carries = []
        for layer in range(self.num_layers):
            y = LayerNorm(name=f"norm_{layer}")(x).astype(jnp.float32)
            start = (zero, zero) if initial_carry is None else initial_carry[layer]
            run, carry = Diagonal(self.features, self.states, name=f"forward_{layer}")(y, mask, start)
            if self.bidirectional:
                back = Diagonal(self.features, self.states, name=f"backward_{layer}")
                run = run + back(y[:, ::-1], mask[:, ::-1], (zero, zero))[0][:, ::-1]
            carries.append(carry)
            run = nn.gelu(run)
            run = run * nn.sigmoid(
                Dense(self.features, dtype=self.dtype, name=f"gate_{layer}")(run).astype(jnp.float32)
            )
            x = x + Dropout(self.dropout, deterministic=not train)(run)
        return x, None if self.bidirectional else tuple(carries)

    def step(self, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """One frame: (carry, x [B, D]) -> (carry, hidden [B, H]); `carry=None` starts a sequence."""
        hidden, carry = self(x[:, None, :], jnp.ones((x.shape[0], 1), bool), initial_carry=carry)
        return carry, hidden[:, 0]
