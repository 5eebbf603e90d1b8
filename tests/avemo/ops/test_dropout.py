import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.ops import parallel
from avemo.ops.dropout import Dropout, example_keys

X = jnp.ones((8, 50, 20))


def drop(x, key, rate=0.25):
    return Dropout(rate).apply({}, x, rngs={"dropout": key})


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_masks_belong_to_the_examples_not_to_the_devices(mode):
    key = jax.random.key(3)
    mapped = parallel.map_step(lambda k, x, _: drop(x, k), mode, gather_outputs=True, donate_state=False)
    eight = parallel.unshard(mapped(key, parallel.shard_batch(np.asarray(X), mode), {}), mode)
    np.testing.assert_array_equal(eight, drop(X, key))


def test_every_example_drops_its_own_entries_and_keeps_the_mean():
    out = np.asarray(drop(X, jax.random.key(0)))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert len({row.tobytes() for row in out}) == 8
    assert not np.array_equal(out, drop(X, jax.random.key(1)))
    assert len({tuple(k) for k in np.asarray(jax.random.key_data(example_keys(jax.random.key(0), 8)))}) == 8


def test_nothing_is_dropped_at_rate_0_or_in_evaluation():
    np.testing.assert_array_equal(Dropout(0.0).apply({}, X), X)
    np.testing.assert_array_equal(Dropout(0.5, deterministic=True).apply({}, X), X)
    assert drop(X.astype(jnp.bfloat16), jax.random.key(0)).dtype == jnp.bfloat16
