"""BatchNorm against its formula, in bfloat16, and over devices against one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.ops import batch_norm
from avemo.ops.batch_norm import BatchNorm
from helpers.arrays import image, with_gradients


def test_batch_norm_updates_by_momentum_and_infers_with_running_statistics():
    x = 3 + 2 * image(16, 5)
    norm = BatchNorm(epsilon=1e-3, momentum=0.75)
    variables = norm.init(jax.random.key(0), x, True)
    y, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-3), atol=1e-5)
    stats = changed["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.25 * x.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * x.var(0), atol=1e-5)
    inferred = norm.apply({**variables, **changed}, x, False)
    np.testing.assert_allclose(inferred, (x - stats["mean"][None]) / jnp.sqrt(stats["var"][None] + 1e-3), atol=1e-5)


def test_batch_norm_keeps_the_variance_of_numbers_far_from_zero():
    x = 1e4 + image(256, 1)
    norm = BatchNorm(momentum=0.0)
    _, changed = norm.apply(norm.init(jax.random.key(0), x, True), x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(changed["batch_stats"]["var"], np.var(np.float64(x), axis=0), rtol=1e-3)


def test_batch_norm_over_eight_devices_equals_one_in_value_gradient_and_statistics():
    x, above = image(16, 3, 4), image(16, 3, 4, seed=1)

    def run(x, above):
        norm = BatchNorm()
        variables = norm.init(jax.random.key(0), x, False)

        def loss(x):
            y, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
            # One device's share; the transposed mean brings it the other devices' gradients.
            return jnp.sum(y * above), (y, changed["batch_stats"])

        slope, (y, stats) = jax.grad(loss, has_aux=True)(x)
        return slope, y, stats

    whole = jax.jit(run)(x, above)
    split = jax.pmap(run, axis_name="batch")(*(v.reshape(8, 2, 3, 4) for v in (x, above)))
    assert jax.device_count() == 8
    np.testing.assert_allclose(split[1].reshape(x.shape), whole[1], atol=1e-5)
    np.testing.assert_allclose(split[0].reshape(x.shape), whole[0], atol=1e-4)
    for device in range(8):
        np.testing.assert_allclose(split[2]["var"][device], whole[2]["var"], atol=1e-6)


def test_compact_batch_norm_equals_the_exact_one_with_gradients_over_devices():
    x, weight = 3 + 2 * image(16, 4, 4, 5), image(16, 4, 4, 5, seed=1)
    scale, bias, shift = 1 + 0.1 * image(5, seed=2), image(5, seed=3), jnp.full(5, 2.5)

    def gradients(norm):
        def loss(x, scale, bias, weight):
            y, mean, var = norm(x, scale, bias)
            return jnp.sum(y.astype(jnp.float32) * weight), (y, mean, var)

        differentiate = jax.grad(loss, (0, 1, 2), has_aux=True)
        (dx, d_scale, d_bias), (y, mean, var) = jax.pmap(differentiate, "batch", in_axes=(0, None, None, 0))(
            x.reshape(8, 2, 4, 4, 5), scale, bias, weight.reshape(8, 2, 4, 4, 5)
        )
        return y, mean, var, dx, d_scale, d_bias

    exact = gradients(lambda x, s, b: batch_norm.exact(x, s, b, 1e-3))
    compact = gradients(lambda x, s, b: batch_norm.compact(x, s, b, shift, 1e-3))
    for ours, theirs in zip(compact, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def test_batch_norm_in_bfloat16_stays_within_its_rounding():
    x = (20 + image(512, 8)).astype(jnp.bfloat16)
    variables = BatchNorm(momentum=0.0).init(jax.random.key(0), x, True)
    out = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        out[dtype] = BatchNorm(momentum=0.0, dtype=dtype).apply(variables, x, True, mutable=["batch_stats"])
    (exact, exact_stats), (compact, stats) = out[jnp.float32], out[jnp.bfloat16]
    assert compact.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(compact), exact, rtol=2**-8, atol=1e-3)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), stats, exact_stats)


@pytest.mark.parametrize("weights", [None, (1.0, 1.0, 0.0, 1.0)])
def test_the_gradient_of_batch_norm_is_that_of_its_formula(weights):
    x, above = 3 + image(4, 3, 3, 2), image(4, 3, 3, 2, seed=1)
    scale, bias = 1 + 0.1 * image(2, seed=2), image(2, seed=3)
    w = None if weights is None else jnp.asarray(weights)
    counts = jnp.ones(4) if w is None else w

    def formula(x, scale, bias):
        share = (counts / (counts.sum() * 9))[:, None, None, None]
        mean = (x * share).sum((0, 1, 2), keepdims=True)
        var = ((x - mean) ** 2 * share).sum((0, 1, 2), keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-3) * scale[None, None, None] + bias[None, None, None]

    def ours(x, scale, bias):
        return batch_norm.exact(x, scale, bias, 1e-3, w)[0]

    value, gradients = with_gradients(ours, above, x, scale, bias)
    expected, their_gradients = with_gradients(formula, above, x, scale, bias)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    for a, b in zip(gradients, their_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
