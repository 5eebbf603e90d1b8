"""The MobileNet-v1 face net: sizes by shape, input scaling, and the published weights against their own graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo.models import pretrained
from avemo.models.mobilenet import BGR_MEAN, MobileNetV1
from benchmarks.parity import visual_cases, weights


@pytest.mark.parametrize(("size", "last"), [(48, 2), (112, 4), (224, 7)])
def test_feature_map_and_parameters(size, last):
    images = jnp.zeros((2, size, size, 3), jnp.uint8)
    net = MobileNetV1()
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), images, False))
    # Keras's MobileNet without its classifier has 3,228,864, which includes the running statistics.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 3_206_976
    assert jax.eval_shape(lambda v: net.apply(v, images, False), variables).shape == (2, last, last, 1024)


def test_input_is_bgr_less_the_channel_means():
    net = MobileNetV1(width=0.25, blocks=1)
    red, green, blue = 200.0, 100.0, 50.0
    image = jnp.broadcast_to(jnp.array([red, green, blue]).reshape(1, 1, 1, 3), (1, 8, 8, 3))
    variables = weights.variables(net, image, seed=0)
    first = variables["params"]["conv1"]
    seen = jnp.array([blue, green, red]) - jnp.array(BGR_MEAN)
    stats = variables["batch_stats"]["conv1"]["bn"]
    # A constant image: away from the border the convolution is the sum of its taps.
    value = jnp.einsum("hwio,i->o", first["conv"]["kernel"], seen)
    value = (value - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-3) * first["bn"]["scale"] + first["bn"]["bias"]
    _, sown = net.apply(variables, image, False, capture_intermediates=True, mutable=["intermediates"])
    output = sown["intermediates"]["conv1"]["__call__"][0]
    np.testing.assert_allclose(output[0, 1, 1], jnp.clip(value, 0, 6), atol=1e-3)


def test_published_weights_give_the_descriptors_of_the_published_graph(real_data, tmp_path):
    file = real_data / "weights" / "faceres-deep.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    pretrained.convert("faceres", file, tmp_path / "faceres")
    loaded = pretrained.load_pretrained(tmp_path / "faceres")
    variables = {"params": loaded.params, "batch_stats": loaded.batch_stats}
    faces = visual_cases.faces(2, 96)
    ours = jax.jit(lambda v, x: MobileNetV1().apply(v, x, False).mean(axis=(1, 2)))(variables, faces)
    golden = np.load(visual_cases.GOLDEN.with_name("face_net.npz"))["descriptor"]
    np.testing.assert_allclose(ours, golden, rtol=0, atol=1e-4 * np.abs(golden).max())
