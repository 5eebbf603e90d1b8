"""Inception-ResNet-v1: sizes and parameters at full size by shape alone, values against a golden file."""

import jax
import jax.numpy as jnp
import pytest

from avemo.models.inception_resnet import MIN_IMAGE_SIZE, InceptionResNetV1
from helpers import golden_visual
from media.errors import UserError


def abstract(module, size):
    images = jnp.zeros((2, size, size, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, False))
    _, sown = jax.eval_shape(
        lambda v: module.apply(v, images, True, mutable=["batch_stats", "intermediates"]), variables
    )
    sizes = {name: value.shape[1:] for name, value in sown["intermediates"]["stages"][0].items()}
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), sizes


def test_trunk_at_140_px_has_the_published_stages_and_12959488_parameters():
    count, stages = abstract(InceptionResNetV1(), 140)
    assert count == 12_959_488
    assert stages == {
        "conv2d_1a": (69, 69, 32),
        "conv2d_2a": (67, 67, 32),
        "conv2d_2b": (67, 67, 64),
        "maxpool_3a": (33, 33, 64),
        "conv2d_3b": (33, 33, 80),
        "conv2d_4a": (31, 31, 192),
        "conv2d_4b": (15, 15, 256),
        "repeat_1": (15, 15, 256),
        "mixed_6a": (7, 7, 896),
        "repeat_2": (7, 7, 896),
        "mixed_7a": (3, 3, 1792),
    }


@pytest.mark.parametrize(("size", "last"), [(75, 1), (80, 1), (112, 2), (160, 3), (224, 5)])
def test_last_stage_at_other_sizes(size, last):
    assert abstract(InceptionResNetV1(width=0.25, repeats_35=1, repeats_17=1), size)[1]["mixed_7a"] == (last, last, 448)


def test_whole_network_has_the_parameters_of_facenet_pytorch_without_its_classifier():
    count, stages = abstract(InceptionResNetV1(whole=True), 160)
    assert count == 23_482_624
    assert stages["last_bn"] == (512,)


def test_too_small_an_image_names_the_field_and_the_size():
    images = jnp.zeros((1, MIN_IMAGE_SIZE - 1, 90, 3))
    with pytest.raises(UserError, match=r"image_size.*at least 75 px, got 74 by 90"):
        jax.eval_shape(lambda: InceptionResNetV1().init(jax.random.key(0), images, False))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_every_stage_equals_facenet_pytorch(mode):
    golden_visual.check_outputs("facenet", mode)


@pytest.mark.slow  # XLA:CPU convolves float64 in plain loops, which takes two minutes
def test_every_gradient_equals_facenet_pytorch():
    golden_visual.check_gradients("facenet")
