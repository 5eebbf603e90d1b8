"""The recurrence of a GRU after its input projection, with a custom gradient.

If JAX differentiates it, the backward scan adds an outer product [H, 3H] to the kernel's gradient at every frame and
reads every gate back. d(gates) is linear in d(h'), so the custom gradient computes its factors for all frames at once.
The backward scan keeps a single product with the kernel, and the kernel's gradient is one product over all frames.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Saved = tuple[jax.Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def gru(
    inputs: Float[Array, "t b h3"],
    valid: Bool[Array, "t b 1"],
    kernel: Float[Array, "h h3"],
    bias: Float[Array, "h3"],
    start: Float[Array, "b h"],
    reverse: bool,
) -> tuple[Float[Array, "t b h"], Float[Array, "b h"]]:
    """h' = (1 − z) ∘ n + z ∘ h over time, as in `avemo.models.temporal.recurrent.GRU`; only reverse-mode derivatives.

    Args:
      inputs: float32 input projections of r, z, n, biases included; h3 = 3H.
      valid: a frame where it is False keeps h.
      kernel: of r, z, n, in the dtype of the matrix products.
      bias: float32.
      start: h before the first frame, float32.
      reverse: run from the last frame to the first.

    Returns:
      h after each frame, and after the last one.
    """
    hidden, carry, _ = _run(inputs, valid, kernel, bias, start, reverse, keep=False)
    return hidden, carry


def _run(
    inputs: jax.Array,
    valid: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    start: jax.Array,
    reverse: bool,
    keep: bool,
) -> tuple[jax.Array, jax.Array, Saved]:
    def frame(h: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, Saved]]:
        i, real = now
        r, z, n, inner = _gates(i, _product(h, kernel, bias))
        h = jnp.where(real, (1.0 - z) * n + z * h, h)
        return h, (h, (r, z, n, inner) if keep else ())

    carry, (hidden, gates) = jax.lax.scan(frame, start, (inputs, valid), reverse=reverse)
    return hidden, carry, gates


def _product(h: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    y = jnp.dot(h.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
    return y + jnp.broadcast_to(bias, y.shape)


def _gates(i: jax.Array, g: jax.Array) -> Saved:
    """Returns r, z, n and the hidden part of n, [..., H] each, from the input and hidden projections [..., 3H]."""
    size = i.shape[-1] // 3
    r, z = jnp.split(jax.nn.sigmoid(i[..., : 2 * size] + g[..., : 2 * size]), 2, axis=-1)
    inner = g[..., 2 * size :]
    return r, z, jnp.tanh(i[..., 2 * size :] + r * inner), inner


def _forward(
    inputs: jax.Array, valid: jax.Array, kernel: jax.Array, bias: jax.Array, start: jax.Array, reverse: bool
) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    hidden, carry, gates = _run(inputs, valid, kernel, bias, start, reverse, keep=True)
    return (hidden, carry), (valid, kernel, start, hidden, gates)


def _backward(reverse: bool, saved: tuple, above: tuple[jax.Array, jax.Array]) -> tuple[jax.Array | None, ...]:
    valid, kernel, start, hidden, (r, z, n, inner) = saved
    d_hidden, d_carry = above
    before = jnp.concatenate([hidden[1:], start[None]] if reverse else [start[None], hidden[:-1]], axis=0)
    # d(gate's argument) = slope ∘ d(h'), for r, for z, and for the input and the hidden part of n.
    slope_n = jnp.where(valid, (1.0 - z) * (1.0 - n * n), 0.0)
    slope_r = slope_n * inner * r * (1.0 - r)
    slope_z = jnp.where(valid, (before - n) * z * (1.0 - z), 0.0)
    slopes = jnp.concatenate([slope_r, slope_z, slope_n * r], axis=-1)
    keep = jnp.where(valid, z, 1.0)
    back = kernel.T

    def frame(d_h: jax.Array, now: Saved) -> tuple[jax.Array, jax.Array]:
        d_y, slope, kept = now
        d_h = d_h + d_y
        d_gates = jnp.concatenate([d_h, d_h, d_h], axis=-1) * slope
        return d_h * kept + jnp.dot(d_gates.astype(back.dtype), back, preferred_element_type=jnp.float32), d_h

    d_start, d_h = jax.lax.scan(frame, d_carry, (d_hidden, slopes, keep), reverse=not reverse)
    d_gates = jnp.concatenate([d_h, d_h, d_h], axis=-1) * slopes
    d_inputs = jnp.concatenate([d_gates[..., : 2 * d_h.shape[-1]], d_h * slope_n], axis=-1)
    d_kernel = jax.lax.dot_general(
        before.astype(kernel.dtype),
        d_gates.astype(kernel.dtype),
        (((0, 1), (0, 1)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    return d_inputs, None, d_kernel.astype(kernel.dtype), d_gates.sum((0, 1)), d_start


gru.defvjp(_forward, _backward)
