"""Products with a bias; and no sum over a batch, a picture or time is taken in bfloat16."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.models import audio_encoders, audiovisual, expression
from avemo.models.fusion import FUSIONS
from avemo.models.temporal import TEMPORALS
from avemo.ops.convolution import Conv, UnpaddedConv
from avemo.ops.linear import Dense
from avemo.ops.pooling import average_pool

SUMS = ("reduce_sum", "cumsum", "psum", "reduce_window_sum")


def drawn(*shape, mean=0.0):
    return np.random.default_rng(0).normal(mean, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "flax", "shape"),
    [
        (Dense(5), nn.Dense(5), (3, 4, 6)),
        (Dense(5, use_bias=False), nn.Dense(5, use_bias=False), (3, 6)),
        (Dense((2, 3)), nn.DenseGeneral((2, 3)), (3, 4, 6)),
        (Dense(5, axes=2), nn.DenseGeneral(5, axis=(-2, -1)), (3, 4, 2, 3)),
        (UnpaddedConv(5, 3, 2, jnp.float32), nn.Conv(5, (3,), kernel_dilation=2, padding="VALID"), (3, 9, 6)),
    ],
    ids=["dense", "no_bias", "to_heads", "from_heads", "over_time"],
)
def test_parameters_and_numbers_are_those_of_flax(ours, flax, shape):
    x = drawn(*shape)
    a, b = (module.init(jax.random.key(3), x) for module in (ours, flax))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    params = jax.tree.map(lambda p: drawn(*p.shape), a)
    tolerance = 2e-6 if isinstance(ours, UnpaddedConv) else 0  # a product over all taps sums in another order
    np.testing.assert_allclose(ours.apply(params, x), flax.apply(params, x), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv(4, (3, 3), dtype=jnp.bfloat16), (8, 24, 16, 2)),
        (UnpaddedConv(4, 3, 1, jnp.bfloat16), (16, 200, 2)),
        (Dense(4, dtype=jnp.bfloat16), (16, 200, 2)),
    ],
    ids=["convolution", "over_time", "dense"],
)
def test_the_gradient_of_a_bias_is_a_float32_sum(layer, shape):
    x = drawn(*shape)
    params = layer.init(jax.random.key(0), x)
    above = jnp.asarray(drawn(*layer.apply(params, x).shape, mean=1), jnp.bfloat16)  # thousands of numbers near 1
    y, gradient = jax.jit(lambda params: (y := jax.vjp(lambda p: layer.apply(p, x), params))[:1] + y[1](above))(params)
    assert y.dtype == jnp.bfloat16
    expected = np.asarray(above, np.float64).reshape(-1, 4).sum(0)
    np.testing.assert_allclose(gradient["params"]["bias"], expected, rtol=1e-5)


def test_an_average_pool_of_bfloat16_is_rounded_once():
    x = jnp.asarray(drawn(2, 6, 6, 3, mean=4), jnp.bfloat16)
    np.testing.assert_array_equal(average_pool(x, 2), average_pool(x.astype(jnp.float32), 2).astype(jnp.bfloat16))


def sums_in_bfloat16(jaxpr):
    """The sums in a program, inner ones included, whose operand is bfloat16, with their shapes and source lines."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        operands = [v.aval for v in equation.invars]
        if equation.primitive.name in SUMS and any(a.dtype == jnp.bfloat16 for a in operands):
            found[f"{equation.primitive.name} {operands[0].str_short()} {equation.source_info.name_stack}"] += 1
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += sums_in_bfloat16(inner)
    return found


def training_sums(model, *inputs):
    """`sums_in_bfloat16` of a model's training pass, forward and backward, traced only."""
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda *x: model.init(key, *x, train=False), *inputs)

    def loss(params, rest, *inputs):
        out, state = model.apply(
            {"params": params, **rest}, *inputs, train=True, rngs={"dropout": key}, mutable=list(rest)
        )
        floats = [x for x in jax.tree.leaves(out) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(x.astype(jnp.float32).sum() for x in floats), state

    params = variables.pop("params")
    gradient = jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, dict(variables), *inputs)
    return sums_in_bfloat16(gradient.jaxpr)


def test_a_sum_in_bfloat16_is_found():
    x = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    assert training_sums(Flax(), x)


class Flax(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3, dtype=jnp.bfloat16)(x)


@pytest.mark.parametrize("name", ["vggish", "yamnet"])
def test_audio_encoders_sum_nothing_in_bfloat16(name):
    small = {"width": 0.0625, **({"fc_dim": 8, "embedding_dim": 8} if name == "vggish" else {"layers": 4})}
    model = audio_encoders.build({"name": name, "dtype": "bfloat16", **small})
    assert not training_sums(model, jax.ShapeDtypeStruct((2, 96, 64), jnp.float32))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("inception_resnet_v1", {"repeats_35": 1, "repeats_17": 1, "dense_layers": 1}),
        ("mobilenet_v1", {"blocks": 3, "dense_layers": 1}),
        ("densenet201", {"layers": (1, 1)}),
        ("compact", {"stages": 3}),
    ],
)
def test_face_networks_sum_nothing_in_bfloat16(name, numbers):
    model = expression.build(ConfigDict({"name": name, "width": 0.0625, "dtype": "bfloat16", **numbers}))
    assert not training_sums(model, jax.ShapeDtypeStruct((2, 80, 80, 3), jnp.uint8))


@pytest.mark.parametrize(
    ("fusion", "temporal"),
    [*((name, "gru") for name in sorted(FUSIONS)), *(("concat", name) for name in sorted(TEMPORALS))],
)
def test_fusions_and_temporal_models_sum_nothing_in_bfloat16(fusion, temporal):
    numbers = {} if temporal == "none" else {"features": 8}
    config = {"fusion": fusion, "fusion_args": {"features": 8}, "temporal": temporal, "temporal_args": numbers}
    model = audiovisual.build(ConfigDict({**config, "dtype": "bfloat16", "dropout": 0.1}))
    x, mask = jax.ShapeDtypeStruct((2, 16, 8), jnp.float32), jax.ShapeDtypeStruct((2, 16), bool)
    assert not training_sums(model, x, x, mask, mask, mask)
