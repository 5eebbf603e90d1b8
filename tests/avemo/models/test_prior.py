"""The prior of the streams' own predictions: a weighted mean, masks, smoothing, and a network that starts from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.models import audiovisual
from avemo.models.prior import Prior
from media.errors import UserError

B, T, N = 2, 30, 3


def batch():
    rng = np.random.default_rng(0)
    predictions = rng.normal(size=(B, T, N, 2)).astype(np.float32)
    mask = np.arange(T)[None] < np.array([T, 20])[:, None]
    seen = mask[..., None] & (rng.random((B, T, N)) < 0.8)
    return predictions, seen, mask


def run(weights=(), smooth=0.0, **spoilt):
    predictions, seen, mask = batch()
    model = Prior(weights, smooth)
    params = model.init(jax.random.key(0), predictions, seen, mask)
    return np.asarray(model.apply(params, spoilt.get("predictions", predictions), seen, mask))


def test_it_is_the_weighted_mean_of_the_streams_that_are_there():
    predictions, seen, _ = batch()
    share = np.array([1.0, 2.0, 5.0])[None, None] * seen
    expected = (share[..., None] * predictions).sum(2) / np.maximum(share.sum(-1), 1e-6)[..., None]
    np.testing.assert_allclose(run((1.0, 2.0, 5.0)), expected, atol=1e-6)
    np.testing.assert_array_equal(run(predictions=np.where(seen[..., None], predictions, np.nan)), run())


def test_smoothing_keeps_a_constant_and_does_not_read_padding():
    predictions, seen, mask = batch()
    constant = np.where(seen[..., None], 0.25, np.nan).astype(np.float32) + np.zeros_like(predictions)
    smooth = run(smooth=2.0, predictions=constant)
    np.testing.assert_allclose(smooth[mask], 0.25, atol=1e-6)
    away = np.arange(-6, 7)
    kernel = np.exp(-0.5 * (away / 2) ** 2)
    known = seen.any(-1)
    plain, row = run()[0, :, 0], 12
    weight = kernel * known[0, row - 6 : row + 7]
    expected = (weight * plain[row - 6 : row + 7]).sum() / weight.sum()
    np.testing.assert_allclose(run(smooth=2.0)[0, row, 0], expected, atol=1e-6)


def test_a_network_starts_from_the_prior_and_learns():
    rng = np.random.default_rng(1)
    predictions, seen, mask = batch()
    model = audiovisual.build(
        ConfigDict(
            {
                **{"streams": "a,b,c", "fusion": "concat", "fusion_args": {"features": 4}, "temporal": "none"},
                **{"prior": "mean", "prior_smooth": 2.0, "temporal_args": {}},
            }
        )
    )
    frames = [rng.normal(size=(B, T, 2)).astype(np.float32) for _ in range(N)]
    inputs = (*frames, *np.moveaxis(seen, -1, 0), mask, predictions)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]

    def loss(params):
        out = model.apply({"params": params}, *inputs)
        return (out["traces"] ** 3).sum(), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(np.asarray(out["traces"])[mask], run(smooth=2.0)[mask], atol=1e-6)
    assert out["carry"] is None  # smoothing reads later frames
    for path in (("prior", "weights"), ("prior", "scale"), ("prior", "offset"), ("traces", "kernel")):
        assert jnp.abs(gradients[path[0]][path[1]]).max() > 1e-7, path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prior": "median"}, "unknown model.prior"),
        ({"prior": "mean", "num_classes": 3}, "one head of valence and arousal"),
        ({"prior": "mean", "num_raters": 2}, "one head of valence and arousal"),
    ],
)
def test_what_has_no_prior_is_a_user_error(fields, message):
    with pytest.raises(UserError, match=message):
        audiovisual.build(ConfigDict(fields))
    with pytest.raises(UserError, match="must be 3 numbers above 0"):
        run((1.0, 0.0, 1.0))
