"""Pools and their gradients against Flax's, and the CPU's form against that of accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from avemo.ops.pooling import average_pool, max_pool, window_max
from helpers.arrays import image


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [7, 8])
def test_max_pool_and_its_gradient_equal_reduce_window(padding, size):
    x = jnp.round(2 * image(2, size, size + 3, 3))  # rounded: ties
    edge = ((padding, padding),) * 2

    def both(pool):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(pool(x) ** 2)))(x)

    ours = both(lambda x: max_pool(x, 3, 2, padding))
    theirs = both(lambda x: nn.max_pool(x, (3, 3), (2, 2), edge))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_average_pool_drops_an_odd_edge():
    x = image(1, 5, 4, 2)
    expected = x[:, :4].reshape(1, 2, 2, 2, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(average_pool(x, 2), expected, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_pool_of_accelerators_equals_that_of_cpus(padding, dtype):
    x = jnp.round(2 * image(2, 8, 11, 3)).astype(dtype)  # rounded: ties

    def both(pool):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.square(pool(x, 3, 2, padding)))))(x)

    for ours, theirs in zip(both(max_pool), both(window_max), strict=True):
        np.testing.assert_array_equal(np.float32(ours), np.float32(theirs))
    program = jax.jit(jax.grad(lambda x: max_pool(x, 3, 2, padding).sum())).trace(x)
    assert "select_and_scatter" in program.lower(lowering_platforms=("tpu",)).as_text()
    assert "select_and_scatter" not in program.lower(lowering_platforms=("cpu",)).as_text()
