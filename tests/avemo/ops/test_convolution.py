"""Spatial, depthwise and pointwise convolutions against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from avemo.aot import compiler
from avemo.ops import pointwise, spatial
from avemo.ops.convolution import Conv, ConvNorm
from helpers.arrays import image, with_gradients


def drawn(conv, x):
    """A convolution's parameters, drawn with its initialiser's variance."""
    kernel = jax.eval_shape(conv.init, jax.random.key(0), x)["params"]["kernel"].shape
    return {"params": {"kernel": image(*kernel, seed=1) / np.float32(np.sqrt(np.prod(kernel[:-1])))}}


@functools.cache
def xla(stride, padding, groups=1):
    """XLA's own convolution; equal arguments give the same function, so that it is compiled once."""

    def convolution(params, x):
        return lax.conv_general_dilated(
            x, params["params"]["kernel"], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip

    return convolution


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "depthwise"),
    [((1, 1), 1, "SAME", False), ((1, 1), 2, "SAME", False), ((3, 3), 1, "SAME", True), ((3, 3), 2, "SAME", True),
     ((3, 3), 2, "VALID", True), ((3, 5), 2, ((2, 1), (0, 3)), True), ((1, 7), 1, "SAME", False)],
)  # fmt: skip
def test_convolution_equals_xla(kernel, stride, padding, depthwise):
    x = image(2, 9, 8, 4)
    features = 4 if depthwise else 6
    groups = 4 if depthwise else 1
    conv = Conv(features, kernel, (stride, stride), padding, groups, use_bias=False)
    params = drawn(conv, x)
    above = image(*jax.eval_shape(conv.apply, params, x).shape, seed=2)
    expected, their_gradients = with_gradients(xla(stride, padding, groups), above, params, x)
    found, gradients = with_gradients(conv.apply, above, params, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradients, their_gradients)


def test_grouped_convolution_that_is_not_depthwise_is_refused():
    with pytest.raises(ValueError, match="depthwise only"):
        Conv(8, (3, 3), feature_group_count=2).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_statistics():
    unit = ConvNorm(4, (3, 3), dtype=jnp.bfloat16)
    x = image(2, 5, 5, 3).astype(jnp.bfloat16)
    variables = jax.jit(unit.init, static_argnums=2)(jax.random.key(0), x, True)
    y, changed = jax.jit(lambda v: unit.apply(v, x, True, mutable=["batch_stats"]))(variables)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, changed))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((2, 0), (0, 1))])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride"), [(4, (3, 3), 1), (64, (3, 3), 1), (64, (3, 3), 2), (4, (1, 3), 1), (4, (2, 4), 1)]
)
@pytest.mark.parametrize("at_once", [1, 3])
def test_the_spatial_convolution_and_its_gradients_equal_xla(channels, kernel, stride, padding, at_once, monkeypatch):
    x = image(3, 9, 8, channels)
    monkeypatch.setattr(spatial, "_at_once", lambda batch, *_: at_once)
    monkeypatch.setattr(spatial, "_LARGE", 7 * 6)  # some by their channels, some by their positions, some not at all
    conv = Conv(6, kernel, (stride, stride), padding, use_bias=False)
    params = drawn(conv, x)
    above = image(*jax.eval_shape(conv.apply, params, x).shape, seed=2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
        with_gradients(conv.apply, above, params, x),
        with_gradients(xla(stride, padding), above, params, x),
    )


@pytest.mark.parametrize(("size", "limit", "count"), [(10, 25, 2), (10, 1000, 6), (10, 5, 1), (10, 45, 3)])
def test_as_many_pictures_at_once_as_fit_and_divide_the_batch(size, limit, count):
    assert spatial._at_once(6, size, limit) == count


def test_the_gradient_of_a_kernel_in_bfloat16_is_summed_in_float32():
    ones = jnp.ones((8, 32, 32, 64), jnp.bfloat16)
    kernel = jnp.zeros((3, 3, 64, 1), jnp.bfloat16)
    slope = jax.grad(lambda k: spatial.convolve_spatial(ones, k, (1, 1), ((1, 1), (1, 1))).astype(jnp.float32).sum())(
        kernel
    )
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(slope[1, 1]), 8 * 32 * 32)  # in bfloat16, 256 + 1 is 256


def test_products_with_several_matrices_equal_those_one_by_one_joined_or_not():
    x, matrices = image(2, 3, 3, 4), (image(4, 2, seed=1), image(4, 5, seed=2))

    @functools.partial(jax.jit, static_argnums=0)
    def run(products, x, matrices):
        y, pull = jax.vjp(products, x, matrices)
        return y, pull(tuple(v + 1 for v in y))

    one_by_one = run(lambda x, matrices: tuple(x @ m for m in matrices), x, matrices)
    for ours in (pointwise.convolve_pointwise_by_each, pointwise._joined, pointwise._apart):
        found = run(ours, x, matrices)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, one_by_one)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_on_a_tpu_the_spatial_convolution_is_that_of_xla(stride):
    pytest.importorskip("libtpu")
    device = compiler.tpu_mesh("v5e:2x4").devices.flat[0]
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
        for shape in ((2, 9, 8, 64), (3, 3, 64, 6))
    ]

    def plain(x, k):
        return lax.conv_general_dilated(x, k, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def compiled(f):
        program = jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k))), argnums=(0, 1))).lower(*shapes).compile()
        cost = program.cost_analysis()
        assert "conditional" not in program.as_text()
        return cost["flops"], cost["bytes accessed"], program.as_text().count("convolution(")

    ours = compiled(lambda x, k: spatial.convolve_spatial(x, k, (stride, stride), ((0, 0), (0, 0))))
    assert ours == compiled(plain)
