"""The layers against JAX's and Flax's own, and BatchNorm over devices against one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from avemo.aot import compiler
from avemo.models import layers
from avemo.ops import batch_norm, pointwise, spatial


def image(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [7, 8])
def test_max_pool_and_its_gradient_equal_reduce_window(padding, size):
    x = jnp.round(2 * image(2, size, size + 3, 3))  # rounded: ties
    edge = ((padding, padding),) * 2

    def both(pool):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(pool(x) ** 2)))(x)

    ours = both(lambda x: layers.max_pool(x, 3, 2, padding))
    theirs = both(lambda x: nn.max_pool(x, (3, 3), (2, 2), edge))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_average_pool_drops_an_odd_edge():
    x = image(1, 5, 4, 2)
    expected = x[:, :4].reshape(1, 2, 2, 2, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(layers.average_pool(x, 2), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "depthwise"),
    [((1, 1), 1, "SAME", False), ((1, 1), 2, "SAME", False), ((3, 3), 1, "SAME", True), ((3, 3), 2, "SAME", True),
     ((3, 3), 2, "VALID", True), ((3, 5), 2, ((2, 1), (0, 3)), True), ((1, 7), 1, "SAME", False)],
)  # fmt: skip
def test_convolution_equals_xla(kernel, stride, padding, depthwise):
    x = image(2, 9, 8, 4)
    features = 4 if depthwise else 6
    groups = 4 if depthwise else 1
    conv = layers.Conv(features, kernel, (stride, stride), padding, groups, use_bias=False)
    params = conv.init(jax.random.key(1), x)["params"]

    def theirs(params, x):
        return lax.conv_general_dilated(
            x, params["kernel"], (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip

    expected, their_gradients = jax.vjp(theirs, params, x)
    found, gradients = jax.vjp(lambda params, x: conv.apply({"params": params}, x), params, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    above = jax.random.normal(jax.random.key(2), expected.shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradients(above), their_gradients(above))


def test_grouped_convolution_that_is_not_depthwise_is_refused():
    with pytest.raises(ValueError, match="depthwise only"):
        layers.Conv(8, (3, 3), feature_group_count=2).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))


def test_batch_norm_updates_by_momentum_and_infers_with_running_statistics():
    x = 3 + 2 * image(16, 5)
    norm = layers.BatchNorm(epsilon=1e-3, momentum=0.75)
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
    norm = layers.BatchNorm(momentum=0.0)
    _, changed = norm.apply(norm.init(jax.random.key(0), x, True), x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(changed["batch_stats"]["var"], np.var(np.float64(x), axis=0), rtol=1e-3)


def test_batch_norm_over_eight_devices_equals_one_in_value_gradient_and_statistics():
    x, above = image(16, 3, 4), image(16, 3, 4, seed=1)

    def run(x, above):
        norm = layers.BatchNorm()
        variables = norm.init(jax.random.key(0), x, False)

        def loss(x):
            y, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
            # A device's own share: the transposed mean carries the others' gradients back to it.
            return jnp.sum(y * above), (y, changed["batch_stats"])

        slope, (y, stats) = jax.grad(loss, has_aux=True)(x)
        return slope, y, stats

    whole = run(x, above)
    split = jax.pmap(run, axis_name="batch")(*(v.reshape(8, 2, 3, 4) for v in (x, above)))
    assert jax.device_count() == 8
    np.testing.assert_allclose(split[1].reshape(x.shape), whole[1], atol=1e-5)
    np.testing.assert_allclose(split[0].reshape(x.shape), whole[0], atol=1e-4)
    for device in range(8):
        np.testing.assert_allclose(split[2]["var"][device], whole[2]["var"], atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_statistics():
    unit = layers.ConvNorm(4, (3, 3), dtype=jnp.bfloat16)
    x = image(2, 5, 5, 3).astype(jnp.bfloat16)
    variables = unit.init(jax.random.key(0), x, True)
    y, changed = unit.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, changed))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("channels", "width", "scaled"),
    [(80, 1.0, 80), (80, 0.5, 40), (32, 0.25, 8), (32, 0.1, 8), (33, 0.5, 16), (38, 0.5, 24)],
)
def test_width_scales_to_multiples_of_eight_never_below_nine_tenths(channels, width, scaled):
    assert layers.scale_width(channels, width) == scaled


def test_l2_normalise_has_unit_norm_and_a_finite_gradient_at_zero():
    x = image(3, 8)
    np.testing.assert_allclose(jnp.linalg.norm(layers.l2_normalise(x), axis=-1), 1.0, atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: layers.l2_normalise(x).sum())(jnp.zeros(4))).all()


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_pool_of_accelerators_equals_that_of_cpus(padding, dtype):
    x = jnp.round(2 * image(2, 8, 11, 3)).astype(dtype)  # rounded: ties

    def both(pool):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.square(pool(x, 3, 2, padding)))))(x)

    for ours, theirs in zip(both(layers.max_pool), both(layers.window_max), strict=True):
        np.testing.assert_array_equal(np.float32(ours), np.float32(theirs))
    program = jax.jit(jax.grad(lambda x: layers.max_pool(x, 3, 2, padding).sum())).trace(x)
    assert "select_and_scatter" in program.lower(lowering_platforms=("tpu",)).as_text()
    assert "select_and_scatter" not in program.lower(lowering_platforms=("cpu",)).as_text()


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
    variables = layers.BatchNorm(momentum=0.0).init(jax.random.key(0), x, True)
    out = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        out[dtype] = layers.BatchNorm(momentum=0.0, dtype=dtype).apply(variables, x, True, mutable=["batch_stats"])
    (exact, exact_stats), (compact, stats) = out[jnp.float32], out[jnp.bfloat16]
    assert compact.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(compact), exact, rtol=2**-8, atol=1e-3)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), stats, exact_stats)


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((2, 0), (0, 1))])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride"), [(4, (3, 3), 1), (64, (3, 3), 1), (64, (3, 3), 2), (4, (1, 3), 1), (4, (2, 4), 1)]
)
@pytest.mark.parametrize("at_once", [1, 3])
def test_the_convolution_over_places_and_its_gradients_equal_xla(
    channels, kernel, stride, padding, at_once, monkeypatch
):
    x = image(3, 9, 8, channels)
    monkeypatch.setattr(spatial, "_at_once", lambda batch, *_: at_once)
    monkeypatch.setattr(spatial, "_LARGE", 7 * 6)  # some by their channels, some by their places, some not at all
    conv = layers.Conv(6, kernel, (stride, stride), padding, use_bias=False)
    params = conv.init(jax.random.key(1), x)
    above = image(*jax.eval_shape(conv.apply, params, x).shape, seed=2)

    def plain(params, x):
        k = params["params"]["kernel"]
        return lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def both(f):
        value, pull = jax.vjp(f, params, x)
        return value, pull(above)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
        jax.jit(lambda: both(conv.apply))(),
        jax.jit(lambda: both(plain))(),
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


def test_products_by_each_of_several_matrices_are_those_one_by_one_joined_or_not():
    x, matrices = image(2, 3, 3, 4), (image(4, 2, seed=1), image(4, 5, seed=2))

    def run(products):
        y, pull = jax.vjp(products, x, matrices)
        return y, pull(tuple(v + 1 for v in y))

    one_by_one = run(lambda x, matrices: tuple(x @ m for m in matrices))
    for ours in (pointwise.convolve_pointwise_by_each, pointwise._joined, pointwise._apart):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), run(ours), one_by_one)


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

    value, pull = jax.vjp(ours, x, scale, bias)
    expected, their_pull = jax.vjp(formula, x, scale, bias)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    for a, b in zip(pull(above), their_pull(above), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_on_a_tpu_the_convolution_over_places_is_that_of_xla(stride):
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
