"""VGGish: published size, order of the flattened map, the PyTorch port's golden file, options."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import audio_encoders
from benchmarks.parity import audio as parity
from benchmarks.parity import weights
from media.audio import log_mel
from media.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "audio_networks.npz"


def shapes(config):
    model = audio_encoders.build(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 96, 64))))["params"]


def test_published_size():
    params = shapes({"name": "vggish"})
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 72_141_184
    assert params["fc1_1"]["kernel"].shape == (12_288, 4_096)
    assert set(params) == {"conv1", "conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "fc1_1", "fc1_2", "fc2"}


def test_equals_torchvggish_under_shared_weights():
    """The whole published network: the first dense layer's 12,288 inputs are in (H, W, C) order; ReLU at the end."""
    golden = np.load(GOLDEN)
    model = audio_encoders.build({"name": "vggish", "final_activation": "relu"})
    params = weights.variables(model, jnp.zeros((1, 96, 64)), seed=parity.SEED)
    embedding = jax.jit(model.apply)(params, golden["windows"])
    np.testing.assert_allclose(embedding, golden["vggish"], atol=1e-4 * np.abs(golden["vggish"]).max())


def test_log_mel_is_the_public_definitions():
    np.testing.assert_allclose(log_mel(parity.voice())[:24], np.load(GOLDEN)["log_mel"], atol=1e-5)


def test_last_activation_and_small_widths():
    config = {"name": "vggish", "width": 1 / 16, "fc_dim": 8, "embedding_dim": 6}
    model = audio_encoders.build(config)
    params = weights.variables(model, jnp.zeros((1, 96, 64)), seed=0)
    windows = parity.windows(2)

    def loss(params):
        embedding = model.apply(params, windows)
        return (embedding**2).sum(), embedding

    gradients, linear = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert linear.shape == (2, 6)
    assert (linear < 0).any()
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
    rectified = jax.jit(audio_encoders.build({**config, "final_activation": "relu"}).apply)(params, windows)
    np.testing.assert_allclose(rectified, np.maximum(linear, 0), atol=1e-6)
    half = jax.jit(audio_encoders.build({**config, "dtype": "bfloat16"}).apply)(params, windows)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, linear, atol=0.05 * np.abs(linear).max())


def test_wrong_configs():
    with pytest.raises(UserError, match="yamnet"):
        audio_encoders.build({"name": "vgg"})
    with pytest.raises(UserError, match="fc_dim"):
        audio_encoders.build({"name": "vggish", "fc_dims": 3})
