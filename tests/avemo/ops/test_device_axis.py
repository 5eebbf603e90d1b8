"""A reduction over all devices is the identity outside mapped functions, however it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from avemo.ops import device_axis
from avemo.ops.batch_norm import BatchNorm
from avemo.ops.device_axis import AXIS


def total(x):
    return device_axis.psum(x).sum()


@jax.custom_vjp
def with_own_gradient(x):
    return total(x)


with_own_gradient.defvjp(lambda x: (total(x), x), lambda x, change: jax.vjp(total, x)[1](change))

TRACED = {
    "plain": total,
    "jit": jax.jit(total),
    "checkpoint": jax.checkpoint(total),
    "custom_vjp": with_own_gradient,
    "scan": lambda x: jax.lax.scan(lambda carry, row: (carry + total(row), None), jnp.zeros(()), x[None])[0],
    "map": lambda x: jax.lax.map(device_axis.psum, x[None]).sum(),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, lambda: total(x), lambda: -total(x)),
    "platform_dependent": lambda x: jax.lax.platform_dependent(x, cpu=total, default=total),
}


def mapped(f, mapping):
    if mapping == "pmap":
        return jax.pmap(f, axis_name=AXIS)
    mesh = jax.make_mesh((8,), (AXIS,), axis_types=(AxisType.Auto,))
    spec, check = PartitionSpec(AXIS), mapping == "shard_map with vma"
    shard = jax.shard_map(
        lambda x: jax.tree.map(lambda v: v[None], f(x[0])), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check
    )
    return jax.jit(shard)


@pytest.mark.parametrize("mapping", ["pmap", "shard_map", "shard_map with vma"])
@pytest.mark.parametrize("traced", TRACED)
def test_psum_reduces_exactly_where_the_axis_is_bound(traced, mapping):
    f, x = TRACED[traced], jnp.arange(1.0, 33.0).reshape(8, 4)
    for _ in range(2):  # in turns: neither use may answer from the other's trace
        np.testing.assert_array_equal(f(x[0]), 10.0)
        np.testing.assert_array_equal(jax.grad(f)(x[0]), np.ones(4))
        np.testing.assert_array_equal(mapped(f, mapping)(x), np.full(8, x.sum()))
        # The transpose of a sum over devices is a sum over devices, so eight equal losses are each differentiated
        # once. With varying-manual-axes checks, JAX knows that the devices share one loss.
        slope = 1.0 if mapping == "shard_map with vma" else 8.0
        np.testing.assert_array_equal(mapped(jax.grad(f), mapping)(x), np.full((8, 4), slope))


def test_the_other_reductions_are_the_identity_on_one_device_and_global_on_eight():
    x = jnp.arange(16.0).reshape(8, 2)

    def all_of_them(x):
        return {
            "mean": device_axis.pmean({"a": x})["a"],
            "rows": device_axis.all_gather(x[None]),
            "index": jnp.asarray(device_axis.index()),
            "count": jnp.asarray(device_axis.count()),
        }

    one, eight = all_of_them(x[1]), jax.pmap(all_of_them, axis_name=AXIS)(x)
    np.testing.assert_array_equal(one["mean"], x[1])
    np.testing.assert_array_equal(one["rows"], x[1:2])
    assert (int(one["index"]), int(one["count"])) == (0, 1)
    np.testing.assert_array_equal(eight["mean"], np.tile(x.mean(0), (8, 1)))
    np.testing.assert_array_equal(eight["rows"], np.tile(x, (8, 1, 1)))
    np.testing.assert_array_equal(eight["index"], np.arange(8))
    np.testing.assert_array_equal(eight["count"], np.full(8, 8))


def test_another_axis_is_not_the_device_axis():
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(jax.vmap(device_axis.psum, axis_name="seeds")(x), x)


def test_initialising_reduces_nothing_even_inside_a_mapped_function():
    def init(x):
        return BatchNorm().init(jax.random.key(0), x, True)

    x = jnp.ones((8, 2, 3))
    program = jax.make_jaxpr(jax.pmap(init, axis_name=AXIS))(x)
    assert "psum" not in str(program)
    variables = jax.pmap(init, axis_name=AXIS)(x)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros((8, 3)))
