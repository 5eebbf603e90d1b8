"""The spatial convolution in the forms that XLA:CPU runs fast; on every other platform it is XLA's own.

Measured on XLA:CPU (`python -m benchmarks.speed --profile`, docs/speed.md):

- unpadded, stride 1: a padded convolution whose edge is cut off gives the same bits in a third of the time;
- a stride above 1: a matrix product over gathered columns, a few pictures at a time;
- the gradient of the kernel: one matrix product per kernel position, a few pictures at a time, which stay in the cache.

The platform is chosen when the program is lowered, so one traced function serves the host and an accelerator, also when
it is compiled ahead of time.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from avemo.ops.depthwise import shifts
from avemo.ops.linear import statistics_dtype
from avemo.ops.pointwise import product_over_positions

LAYOUT = ("NHWC", "HWIO", "NHWC")
Edges = tuple[tuple[int, int], tuple[int, int]]

# Products are the faster kernel gradient for many input channels or a large output.
_WIDE, _LARGE = 64, 32 * 32
# Bytes at once. Gathered columns are read once, by a product that has all cores. The factors of a gradient are read
# again for each kernel position, so they must stay in the second-level caches of two cores.
_COLUMNS, _FACTORS = 16_000_000, 5_000_000


def _plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], edges: Edges) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, edges, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_spatial(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], strides: tuple[int, int], edges: Edges
) -> Float[Array, "b h2 w2 o"]:
    """Convolves `x` with `edges` zeros around it; only reverse-mode derivatives."""
    plain = functools.partial(_plain, strides=strides, edges=edges)
    if strides != (1, 1):
        gather = functools.partial(_gather, strides=strides, edges=edges)
        return lax.platform_dependent(x, kernel, cpu=gather, default=plain)
    if edges == ((0, 0), (0, 0)):
        return lax.platform_dependent(x, kernel, cpu=_cut, default=plain)
    return plain(x, kernel)


def _cut(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Unpadded, stride 1: the padded convolution without its edge."""
    height, width = kernel.shape[:2]
    around = (height // 2, height // 2), (width // 2, width // 2)
    y = _plain(x, kernel, (1, 1), around)
    rows, columns = (
        (low, low + size - k + 1) for (low, _), size, k in zip(around, x.shape[1:3], kernel.shape, strict=False)
    )
    return y[:, slice(*rows), slice(*columns)]


def _gather(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], edges: Edges) -> jax.Array:
    """Larger strides: the patch of each output as a row, times the kernel as a matrix."""
    window = kernel.shape[:2]
    matrix = kernel.reshape(-1, kernel.shape[-1])

    def some(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *edges, (0, 0)))
        columns = jnp.concatenate(shifts(x, window, strides), axis=-1)
        return lax.dot_general(columns, matrix, (((3,), (0,)), ((), ())))

    size = jax.eval_shape(some, x[:1]).size // kernel.shape[-1] * matrix.shape[0]
    count = _at_once(x.shape[0], size * x.dtype.itemsize, _COLUMNS)
    if count == x.shape[0]:
        return some(x)
    y = lax.map(some, _split(x, count))
    return y.reshape(-1, *y.shape[2:])


def _forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], edges: Edges
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_spatial(x, kernel, strides, edges), (x, kernel)


def _backward(
    strides: tuple[int, int], edges: Edges, saved: tuple[jax.Array, jax.Array], change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (to_x,) = jax.linear_transpose(lambda x: _plain(x, kernel, strides, edges), x)(change)

    def by_xla(x: jax.Array, change: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: _plain(x, kernel, strides, edges), kernel)(change)[0]

    # XLA is fast enough for the single row of 1×7; 17×17 positions of 32 channels make too thin a product.
    products = kernel.shape[0] > 1 and (x.shape[-1] >= _WIDE or math.prod(change.shape[1:3]) >= _LARGE)
    if not products:
        return to_x, by_xla(x, change)
    by_products = functools.partial(_by_products, kernel, strides, edges)
    return to_x, lax.platform_dependent(x, change, cpu=by_products, default=by_xla)


def _by_products(
    kernel: jax.Array, strides: tuple[int, int], edges: Edges, x: jax.Array, change: jax.Array
) -> jax.Array:
    """The kernel's gradient: per kernel position, its inputs times the change, summed in at least float32."""
    window, inside = kernel.shape[:2], statistics_dtype(x.dtype)

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, change = chunk
        x = jnp.pad(x, ((0, 0), *edges, (0, 0)))
        products = [product_over_positions(seen, change, inside) for seen in shifts(x, window, strides)]
        return total + jnp.stack(products), None

    count = _at_once(x.shape[0], (x[0].size + change[0].size) * x.dtype.itemsize, _FACTORS)
    zero = jnp.zeros((math.prod(window), *kernel.shape[2:]), inside)
    if count == x.shape[0]:
        total, _ = add(zero, (x, change))
    else:
        total, _ = lax.scan(add, zero, (_split(x, count), _split(change, count)))
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _at_once(batch: int, size: int, limit: int) -> int:
    """Returns the largest divisor of `batch` for which that many pictures of `size` bytes are within `limit`, or 1.

    Also 1 if the batch size is symbolic, as in an exported program.
    """
    if not isinstance(batch, int):
        return 1
    return max((n for n in range(1, batch + 1) if batch % n == 0 and n * size <= limit), default=1)


def _split(x: jax.Array, count: int) -> jax.Array:
    return x.reshape(-1, count, *x.shape[1:])


convolve_spatial.defvjp(_forward, _backward)
