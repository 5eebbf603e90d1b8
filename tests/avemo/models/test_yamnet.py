"""YAMNet: published size, the TFLite graph's golden file, trainability."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from avemo.models import audio_encoders, pretrained
from benchmarks.parity import audio as parity
from benchmarks.parity import weights

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


def test_published_size():
    model = audio_encoders.build({"name": "yamnet"})
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 96, 64))))
    convolutions = sum(v["conv"]["kernel"].size for v in variables["params"].values())
    norms = sum(v["bn"]["bias"].size for v in variables["params"].values())
    # 3,751,369 published, less the classifier's 1024·521 + 521; the published count has mean and variance, no scale.
    assert convolutions + 3 * norms == 3_751_369 - 1024 * 521 - 521
    assert len(variables["params"]) == 27


def test_equals_the_tflite_graph(real_data, tmp_path):
    pretrained.convert("yamnet", real_data / "weights" / "yamnet.tflite", tmp_path / "yamnet")
    loaded = pretrained.load_pretrained(tmp_path / "yamnet")
    model = audio_encoders.build({"name": "yamnet"})
    windows = np.load(GOLDEN / "audio_networks.npz")["windows"]
    run = jax.jit(lambda x: model.apply({"params": loaded.params, "batch_stats": loaded.batch_stats}, x))
    expected = np.load(GOLDEN / "yamnet.npz")["embedding"]
    np.testing.assert_allclose(run(windows), expected, atol=1e-4 * expected.max())


def test_every_parameter_learns_and_statistics_move():
    model = audio_encoders.build({"name": "yamnet", "width": 0.25, "layers": 3})
    windows = parity.windows(2)
    variables = weights.variables(model, windows, seed=0)

    def loss(params):
        embedding, changed = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]}, windows, train=True, mutable=["batch_stats"]
        )
        return (embedding**2).sum(), (embedding, changed)

    gradients, (embedding, changed) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert embedding.shape == (2, 32)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)
    before = variables["batch_stats"]["layer1"]["bn"]["mean"]
    assert not np.array_equal(changed["batch_stats"]["layer1"]["bn"]["mean"], before)


def test_frozen_layers_neither_learn_nor_count():
    windows = parity.windows(2)
    whole = audio_encoders.build({"name": "yamnet", "width": 0.25, "layers": 3})
    variables = weights.variables(whole, windows, seed=0)
    model = audio_encoders.build({"name": "yamnet", "width": 0.25, "layers": 3, "frozen_layers": 2})

    def loss(params):
        embedding, changed = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]}, windows, train=True, mutable=["batch_stats"]
        )
        return (embedding**2).sum(), changed["batch_stats"]

    gradients, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for layer, gradient in gradients.items():
        learns = layer.startswith("layer3")
        assert all(np.any(leaf) == learns for leaf in jax.tree.leaves(gradient)), layer
        before = variables["batch_stats"][layer]["bn"]["mean"]
        assert np.array_equal(statistics[layer]["bn"]["mean"], before) != learns, layer


def test_frozen_statistics_train_as_they_infer():
    windows = parity.windows(2)
    model = audio_encoders.build({"name": "yamnet", "width": 0.25, "layers": 3, "freeze_statistics": True})
    variables = weights.variables(model, windows, seed=0)
    trained, changed = model.apply(variables, windows, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained, model.apply(variables, windows))
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
