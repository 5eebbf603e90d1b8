"""The teacher's published numbers, the heads, and freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import expression
from helpers.networks import small
from media.errors import UserError

# Small relatives of each network: they differ from the published ones in numbers only.


def abstract(config, size):
    net, images = expression.build(config), jnp.zeros((2, size, size, 3), jnp.uint8)
    outputs, variables = jax.eval_shape(
        lambda: net.init_with_output(
            jax.random.key(0), images, False, mutable=["params", "batch_stats", "intermediates"]
        )
    )
    return variables["params"], outputs, variables["intermediates"]["features"][0]


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_teacher_has_exactly_the_published_parameters():
    params, _, features = abstract({"name": "inception_resnet_v1"}, 140)
    assert {part: size(tree) for part, tree in params.items()} == {
        "trunk": 12_959_488, "neck": 2_591_360, "embedding_head": 4_128, "expression_head": 1_032
    }  # fmt: skip
    assert size(params) == 15_556_008
    assert features.shape == (2, 3, 3, 1792)
    neck = params["neck"]
    assert neck["reduce"]["conv"]["kernel"].shape == (1, 1, 1792, 512)
    assert neck["denseblock"]["denselayer5"]["conv1"]["kernel"].shape == (1, 1, 512 + 4 * 64, 256)
    assert neck["project"]["conv"]["kernel"].shape == (1, 1, 832, 128)


@pytest.mark.parametrize("image_size", [112, 160, 224])
def test_teacher_outputs(image_size):
    _, outputs, _ = abstract({"name": "inception_resnet_v1", "dtype": "bfloat16"}, image_size)
    assert {name: (value.shape, value.dtype) for name, value in outputs.items()} == {
        "descriptor": ((2, 128), jnp.float32), "embedding": ((2, 32), jnp.float32), "logits": ((2, 8), jnp.float32)
    }  # fmt: skip


def test_outputs_are_those_of_the_small_network_and_uint8_equals_float():
    net, variables, images = small("compact")
    images = jnp.round(images)
    apply = jax.jit(lambda x: net.apply(variables, x, False))
    outputs = apply(images)
    np.testing.assert_allclose(jnp.linalg.norm(outputs["embedding"], axis=-1), 1.0, atol=1e-5)
    assert (outputs["descriptor"] >= 0).all()
    for key, value in apply(images.astype(jnp.uint8)).items():
        np.testing.assert_allclose(value, outputs[key], atol=1e-5)


def test_unit_norm_is_a_switch():
    net, variables, images = small("compact", unit_norm_embedding=False)
    outputs = jax.jit(lambda x: net.apply(variables, x, False))(images)
    head = variables["params"]["embedding_head"]
    np.testing.assert_allclose(
        outputs["embedding"], outputs["descriptor"] @ head["kernel"] + head["bias"][None], atol=1e-4
    )


@pytest.mark.parametrize("switch", ["freeze_trunk", "freeze_statistics"])
def test_frozen_trunk_keeps_its_statistics_and_only_a_frozen_one_its_parameters(switch):
    net, variables, images = small("compact", **{switch: True})

    def loss(params):
        outputs, changed = net.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
        return jnp.sum(outputs["logits"] ** 2), changed["batch_stats"]

    gradients, stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, stats["trunk"], variables["batch_stats"]["trunk"])
    moved = [np.abs(after - before).max() for after, before in zip(
        jax.tree.leaves(stats["neck"]), jax.tree.leaves(variables["batch_stats"]["neck"]), strict=True)]  # fmt: skip
    assert min(moved) > 0
    still = [not np.any(g) for g in jax.tree.leaves(gradients["trunk"])]
    assert all(still) if switch == "freeze_trunk" else not any(still)
    assert np.any(gradients["neck"]["project"]["conv"]["kernel"])


def test_bfloat16_stays_near_float32():
    net, variables, images = small("compact")
    half, _, _ = small("compact", dtype="bfloat16")
    outputs, rough = (jax.jit(lambda x, n=n: n.apply(variables, x, False))(images) for n in (net, half))
    for key, value in outputs.items():
        assert rough[key].dtype == jnp.float32
        np.testing.assert_allclose(rough[key], value, atol=0.05 * np.abs(value).max())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model.name is missing: set it to one of compact"),
        ({"name": "inception_v1"}, "unknown expression network 'inception_v1'; did you mean 'inception_resnet_v1'"),
        ({"name": "compact", "repeats_35": 2}, "unknown field of model 'compact' 'repeats_35'"),
        ({"name": "compact", "neck": "dens"}, "unknown model.neck 'dens'; did you mean 'dense'"),
        ({"name": "compact", "dtype": "float16"}, "unknown model.dtype 'float16'"),
    ],
)
def test_config_errors_name_the_field(config, message):
    with pytest.raises(UserError, match=message):
        expression.build(config)


def test_config_may_carry_the_keys_of_others():
    net = expression.build({"name": "compact", "image_size": 112, "init_from": "weights", "neck": "dense"})
    assert isinstance(net.neck, expression.DenseNeck)


def test_a_grey_network_does_not_see_colour():
    net = expression.build({"name": "compact", "width": 0.25, "stages": 1, "last_features": 16, "grey": True})
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    luma = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    grey = np.repeat(luma[..., None], 3, -1)
    variables = net.init(jax.random.key(0), grey, train=False)
    kept = {name: variables[name] for name in ("params", "batch_stats")}
    seen = [net.apply(kept, images, train=False) for images in (colour, grey)]
    np.testing.assert_allclose(seen[0]["logits"], seen[1]["logits"], rtol=1e-4, atol=1e-5)
