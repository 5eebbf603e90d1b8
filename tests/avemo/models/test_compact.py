"""The compact student stays within 3 M parameters and 250 MFLOP per face, counted in two ways."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.models import compact, cost, expression
from avemo.ops.convolution import Conv

FACE = jax.ShapeDtypeStruct((1, compact.IMAGE_SIZE, compact.IMAGE_SIZE, 3), jnp.uint8)


def student():
    return expression.build({"name": "compact"})


def test_parameters():
    variables = jax.eval_shape(lambda x: student().init(jax.random.key(0), x, False), FACE)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 2_393_256
    assert count <= 3_000_000


def test_multiply_adds_by_layers_and_operations_by_xla():
    net = student()
    macs = cost.count_macs(net, FACE)
    assert macs == 83_530_368
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, False), FACE)
    flops = jax.jit(lambda v, x: net.apply(v, x, False)).lower(variables, FACE).cost_analysis()["flops"]
    # A multiply-add is two operations; XLA also counts BatchNorm and activations.
    assert 2 * macs <= flops <= 250e6


def test_count_macs_of_a_network_counted_by_hand():
    class Tiny(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = Conv(4, (3, 3), (2, 2), name="conv")(x)  # 3·3·3·4 at 4 × 5 positions
            x = Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x)  # 3·3·4 at 4 × 5 positions
            return nn.Dense(7, name="head")(x.mean(axis=(1, 2)))  # 4·7

    assert cost.count_macs(Tiny(), jax.ShapeDtypeStruct((1, 8, 10, 3), jnp.float32)) == 108 * 20 + 36 * 20 + 28


def test_feature_map():
    net = compact.MobileNetV2()
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, False), FACE)
    assert jax.eval_shape(lambda v, x: net.apply(v, x, False), variables, FACE).shape == (1, 4, 4, 1280)
