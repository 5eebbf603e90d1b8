"""DenseNet: the parameters of DenseNet-201 by shape, and values against torchvision's golden file."""

import jax
import jax.numpy as jnp
import pytest

from avemo.models.densenet import DenseNet
from helpers import golden_visual


def test_densenet_201_has_torchvisions_features_and_parameters():
    images = jnp.zeros((1, 112, 112, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: DenseNet().init(jax.random.key(0), images, False))
    # torchvision's 20,013,928 less the 1000-class classifier, 1920 · 1000 + 1000.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 18_092_928
    assert jax.eval_shape(lambda v: DenseNet().apply(v, images, False), variables).shape == (1, 3, 3, 1920)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_features_equal_torchvision(mode):
    golden_visual.check_outputs("densenet", mode)


def test_every_gradient_equals_torchvision():
    golden_visual.check_gradients("densenet")
