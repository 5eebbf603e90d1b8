"""A stage is made from its config alone; its data is opened separately."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo import configuration, tasks
from avemo.tasks import expression_losses
from helpers import sequences, toy
from media.errors import UserError


@pytest.mark.parametrize("name", ["teacher", "student", "audio", "fusion", "end_to_end"])
def test_a_stage_needs_no_data(name):
    stage = tasks.make(configuration.load(f"configs/paper/{name}.py:smoke"))
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key: stage.init(key, stage.spec(stage.sizes())), key)
    assert variables["params"]
    assert stage.examples(stage.sizes()) > 0
    with pytest.raises(UserError, match=r"data\.[\w ,.]+ (is|are) empty"):
        tasks.open_data(stage)


def test_a_config_without_a_field_is_refused_by_its_name():
    config = configuration.load("configs/demo/audio.py:smoke")
    with config.unlocked():
        del config.data.windows
    with pytest.raises(UserError, match=r"the config of task 'audio' lacks the field 'data.windows'"):
        tasks.make(config)
    config.task = "audoi"
    with pytest.raises(UserError, match="did you mean 'audio'"):
        tasks.make(config)


def test_a_students_teacher_is_needed_when_it_is_trained_or_compared():
    config = configuration.load("configs/demo/student.py:smoke", ["--config.teacher=nowhere"])
    stage = tasks.make(config)
    with pytest.raises(UserError, match="teacher nowhere is not a run folder"):
        stage.constants()
    image = np.zeros((1, config.model.image_size, config.model.image_size, 3), np.uint8)
    variables = jax.eval_shape(lambda: stage.init(jax.random.key(0), {}))
    found = jax.eval_shape(stage.predict, variables, {"image": image})
    assert set(found) == {"embedding", "logits"}


def test_features_are_standardised_by_the_training_split(tmp_path):
    folder = sequences.write_features(tmp_path)
    stage = tasks.make(configuration.load("configs/demo/fusion.py:smoke", [f"--config.data.features={folder}"]))
    data = tasks.open_data(stage)
    assert data.spec()["sequences"]["audio"].shape[-1] == 4  # the data's width, not the paper's 128
    drawn = jax.eval_shape(lambda: stage.init(jax.random.key(0), data.spec()))
    variables = data.standardise(stage.init(jax.random.key(0), data.spec()))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, drawn)
    train = np.concatenate([r.audio for r in data.recordings("train")])
    np.testing.assert_allclose(variables["constants"]["audio_mean"], train.mean(0), atol=1e-6)
    np.testing.assert_allclose(variables["constants"]["audio_std"], train.std(0), atol=1e-6)


def test_the_classes_of_data_to_train_on_must_be_the_models(tmp_path):
    folder = toy.faces(tmp_path, 8, 2)
    overrides = [f"--config.data.faces={folder}", "--config.model.num_classes=7"]
    stage = tasks.make(configuration.load("configs/demo/teacher.py:smoke", overrides))
    with pytest.raises(UserError, match="num_classes=8"):
        tasks.open_data(stage)
    assert len(tasks.open_data(stage, folder).class_names) == 8  # data for evaluation may have others


def test_votes_with_class_weights_are_met_where_the_votes_times_the_weights_are_met():
    weights, votes = np.array([1.0, 4.0, 0.5]), np.array([[6.0, 2.0, 2.0], [0.0, 9.0, 1.0]])
    settings = ConfigDict({"labels": "votes", "ce_weight": 1.0, "class_weights": tuple(weights)})
    batch = {"faces": {"label": jnp.array([0, 1]), "votes": jnp.asarray(votes, jnp.float32)}}

    def loss(logits):
        return expression_losses.criterion(settings, False, {"faces": {"student": {"logits": logits}}}, batch)[0]

    met = jnp.log(jnp.asarray(votes * weights[None] + 1e-9, jnp.float32))
    np.testing.assert_allclose(jax.grad(loss)(met), 0, atol=1e-6)
    assert loss(met) < loss(jnp.log(jnp.asarray(votes + 1e-9, jnp.float32)))
