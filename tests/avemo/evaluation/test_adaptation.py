"""Fitting a run to the faces of new people, without their labels."""

import json

import jax
import numpy as np
import pytest

from avemo import configuration
from avemo.evaluation import adaptation, evaluate
from avemo.models import expression
from avemo.runs import checkpoints
from avemo.tasks.frame_pooling import without_person
from avemo.training import train
from helpers import toy
from media.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A face run trained for one step, and clips of three people with two recordings each."""
    root = tmp_path_factory.mktemp("adaptation")
    overrides = [f"--config.data.faces={toy.faces(root / 'data')}", "--config.data.batch.triplets=0"]
    overrides += ["--config.loss.fec_weight=0.0"]
    config = configuration.load("tests/helpers/experiments/teacher.py:smoke", overrides)
    train.train_and_evaluate(config, root / "run", progress=False)
    clips = toy.clips(root / "clips", dev=6, frames=6, segments=2, subject=lambda split, n: f"{split}{n // 2}")
    return root, clips


def test_statistics_become_those_of_the_faces_and_nothing_else_changes(run):
    root, clips = run
    config, _, variables = checkpoints.load(root / "run")
    images = adaptation.faces(clips, "dev", config.model.image_size)
    assert images.shape == (66, config.model.image_size, config.model.image_size, 3)  # of 72, 6 have no face
    fitted = adaptation.statistics(config, variables, images)
    assert fitted["params"] is variables["params"]
    # Evaluation mode then normalises by the same statistics as training mode.
    both = np.concatenate([images, images[:, :, ::-1]])
    model = expression.build(config.model)
    trained, _ = model.apply(fitted, both, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(model.apply(fitted, both, train=False)["logits"], trained["logits"], atol=1e-3)
    assert not np.allclose(model.apply(variables, both, train=False)["logits"], trained["logits"], atol=1e-2)


def test_batches_are_joined_by_the_law_of_total_variance(run, monkeypatch):
    root, clips = run
    config, _, variables = checkpoints.load(root / "run")
    images = adaptation.faces(clips, "dev", config.model.image_size)
    whole = adaptation.statistics(config, variables, images)["batch_stats"]
    monkeypatch.setattr(adaptation, "ROWS", 33)
    parts = adaptation.statistics(config, variables, images)["batch_stats"]
    first = "stem"  # whose input does not depend on statistics
    for a, b in zip(jax.tree.leaves(whole["trunk"][first]), jax.tree.leaves(parts["trunk"][first]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_average_answer_of_a_person_is_subtracted():
    shares = np.log([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    found = without_person(shares, ["a", "a", "b", "b"])
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_array_equal(found.argmax(1), [0, 1, 1, 0])
    # Two answers are mirrored about their mean, and a person's constant offset changes nothing.
    np.testing.assert_allclose(found[0], found[1][::-1])
    np.testing.assert_allclose(without_person(shares + np.array([3.0, -1.0]), ["a", "a", "b", "b"]), found)


def test_evaluate_adapts_and_says_so(run):
    root, clips = run
    arguments = {"data": clips, "split": "dev"}
    said = {}
    for adapt in ("", "statistics", "person", "statistics,person"):
        evaluate.evaluate(str(root / "run"), **arguments, adapt=adapt, output=str(root / "said"))
        said[adapt] = np.load(root / "said/dev.npz")["probability"]
        entry = json.loads((root / "run/evaluation.json").read_text())
        assert entry.get("adapt", []) == [kind for kind in adapt.split(",") if kind]
    assert len({value.tobytes() for value in said.values()}) == 4
    for value in said.values():
        np.testing.assert_allclose(value.sum(1), 1)
    expected = np.log(said["person"])
    np.testing.assert_allclose(expected.reshape(3, 2, -1).sum(1).std(1), 0, atol=1e-5)  # the person's offset is gone


def test_what_cannot_be_adapted_is_refused(run, tmp_path):
    root, _ = run
    with pytest.raises(UserError, match="unknown --adapt 'voice'"):
        adaptation.parse("statistics,voice")
    with pytest.raises(UserError, match="3 of 3 persons have one only"):
        evaluate.evaluate(str(root / "run"), toy.clips(tmp_path, frames=6), "dev", adapt="person")
    with pytest.raises(UserError, match="for clips, which name the person"):
        evaluate.evaluate(str(root / "run"), str(root / "data"), "dev", adapt="person")
    with pytest.raises(UserError, match="--adapt is for runs of faces"):
        evaluate.Options(adapt=("person",)).check("audio")
