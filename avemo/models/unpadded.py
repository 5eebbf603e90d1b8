"""The unpadded convolution, which XLA:CPU does slowly; on every other platform it is XLA's own, forward and backward.

On XLA:CPU an unpadded convolution of stride 1 takes 3 times as long as a padded one cut to the same numbers, and the
gradient of a wide kernel 1.3 to 3.5 times as long as a matrix product for each place in it (`python -m
benchmarks.speed --profile`). The platform is chosen where the program is lowered, so that one traced function is
right for the host and for an accelerator, ahead of time too.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
_WIDE = 64  # input channels from which one matrix product a place is the faster kernel gradient


def _plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_unpadded(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """`x` [B, H, W, I], `kernel` [h, w, I, O] -> [B, (H − h) // stride + 1, (W − w) // stride + 1, O]; reverse mode."""
    plain = functools.partial(_plain, strides=strides)
    if strides != (1, 1):
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=_cut, default=plain)


def _cut(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1: the padded convolution, less its edge."""
    edges = [(size // 2, size // 2) for size in kernel.shape[:2]]
    y = lax.conv_general_dilated(x, kernel, (1, 1), edges, dimension_numbers=LAYOUT)
    rows, columns = (
        (low, low + size - k + 1) for (low, _), size, k in zip(edges, x.shape[1:3], kernel.shape, strict=False)
    )
    return y[:, slice(*rows), slice(*columns)]


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> tuple[jax.Array, tuple]:
    return convolve_unpadded(x, kernel, strides), (x, kernel)


def _backward(strides: tuple[int, int], saved: tuple, above: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    _, to_x = jax.vjp(lambda x: _plain(x, kernel, strides), x)

    def by_xla(x: jax.Array, above: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: _plain(x, k, strides), kernel)[1](above)[0]

    def by_products(x: jax.Array, above: jax.Array) -> jax.Array:
        spans = [(size - 1) * stride + 1 for size, stride in zip(above.shape[1:3], strides, strict=True)]
        places = [
            lax.dot_general(
                x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]].reshape(-1, x.shape[-1]),
                above.reshape(-1, above.shape[-1]),
                (((0,), (0,)), ((), ())),
            )
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        ]
        return jnp.stack(places).reshape(kernel.shape)

    wide = x.shape[-1] >= _WIDE
    to_kernel = lax.platform_dependent(x, above, cpu=by_products, default=by_xla) if wide else by_xla(x, above)
    return to_x(above)[0], to_kernel


convolve_unpadded.defvjp(_forward, _backward)
