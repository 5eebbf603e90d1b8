"""The depthwise convolution: one small kernel per channel, as a sum of shifted products accumulated in float32.

It gives the same numbers as XLA's grouped convolution, which XLA:CPU runs 20 to 60 times more slowly. On XLA:CPU the
gradients are taken for a few examples at a time, which stay in the cache. Otherwise XLA would fuse over the whole batch
and recompute the surrounding layers once per kernel position. The platform is chosen when the program is lowered.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_CHUNKS = 16  # a batch is cut into at most this many


def shifts(
    x: Float[Array, "b h w c"], window: tuple[int, ...], strides: tuple[int, int]
) -> list[Float[Array, "b h2 w2 c"]]:
    """Returns the strided slice of `x` that each position of the window sees, in row-major order."""
    spans = [(size - w) // s * s + 1 for size, w, s in zip(x.shape[1:3], window, strides, strict=True)]
    return [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "b h2 w2 c"]:
    """Convolves each channel by its own kernel; everything is float32 or float64."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return sum(shift * tap for shift, tap in zip(shifts(x, kernel.shape[:2], strides), taps, strict=True))


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Sequence[tuple[int, int]]) -> tuple:
    return convolve_depthwise(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Sequence[tuple[int, int]], saved: tuple, change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved

    def at_once(x: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, k: convolve_depthwise.fun(x, k, strides, padding), x, kernel)[1](change)

    def in_chunks(x: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        chunks = max(n for n in range(1, _CHUNKS + 1) if len(x) % n == 0)
        split = lambda v: v.reshape(chunks, -1, *v.shape[1:])  # noqa: E731
        add = functools.partial(_add_chunk, kernel, strides, padding)
        zero = jnp.zeros((kernel.shape[0] * kernel.shape[1], kernel.shape[-1]), x.dtype)
        to_kernel, to_x = lax.scan(add, zero, (split(x), split(change)))
        return to_x.reshape(x.shape), to_kernel.reshape(kernel.shape)

    return lax.platform_dependent(x, change, cpu=in_chunks, default=at_once)


def _add_chunk(
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    total: jax.Array,
    chunk: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Adds a chunk's share of the kernel's gradient [h · w, C] to `total`; returns it and the gradient of the chunk."""
    x, change = chunk
    window = kernel.shape[:2]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    products = tuple(shift * change for shift in shifts(padded, window, strides))
    zeros = (jnp.zeros((), x.dtype),) * len(products)
    sums = lax.reduce(products, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (0, 1, 2))
    # The transposed convolution: the kernel turned by 180°, over the change with stride - 1 zeros between its entries.
    spread = [(0, 0, 0)]
    for w, (low, _), size, out, stride in zip(window, padding, x.shape[1:3], change.shape[1:3], strides, strict=True):
        spread.append((w - 1 - low, size + low - 1 - (out - 1) * stride, stride - 1))
    change = lax.pad(change, jnp.zeros((), change.dtype), [*spread, (0, 0, 0)])
    to_x = convolve_depthwise.fun(change, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))
    return total + jnp.stack(sums), to_x


convolve_depthwise.defvjp(_forward, _backward)
