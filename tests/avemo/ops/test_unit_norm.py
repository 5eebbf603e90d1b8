"""Vectors on the unit sphere."""

import jax
import jax.numpy as jnp
import numpy as np

from avemo.ops.unit_norm import l2_normalise
from helpers.arrays import image


def test_l2_normalise_has_unit_norm_and_a_finite_gradient_at_zero():
    x = image(3, 8)
    np.testing.assert_allclose(jnp.linalg.norm(l2_normalise(x), axis=-1), 1.0, atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: l2_normalise(x).sum())(jnp.zeros(4))).all()
