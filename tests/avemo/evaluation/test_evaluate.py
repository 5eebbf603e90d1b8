"""A trained run scored on corpora it has never seen: other classes, clips, mirror images."""

import json

import jax
import numpy as np
import pytest

from avemo import configuration, tasks
from avemo.evaluation import evaluate, scoring
from avemo.metrics import shared_classes
from avemo.runs import run_folder
from avemo.tasks import expression_data
from avemo.training import train
from helpers import toy
from media.errors import UserError

RUN, DATA = ("neutral", "happy", "sad", "anger"), ("calm", "anger", "neutral")


def test_only_classes_that_both_know_are_scored():
    probability = np.array([[0.1, 0.6, 0.1, 0.2], [0.4, 0.5, 0.0, 0.1], [0.3, 0.3, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    labels, kept = shared_classes.match(RUN, DATA, np.array([1, 2, 0, -1]), probability)
    np.testing.assert_array_equal(labels, [1, 0, -1, -1])  # anger, neutral, calm: unknown, none
    np.testing.assert_allclose(kept, [[1 / 3, 2 / 3], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])


def test_equal_classes_change_nothing_and_too_few_are_an_error():
    labels, probability = np.array([3, -1]), np.eye(4)[:2]
    found = shared_classes.match(RUN, RUN, labels, probability)
    assert found[0] is labels
    assert found[1] is probability
    with pytest.raises(UserError, match="no two classes are the same"):
        shared_classes.match(RUN, ("neutral", "bored"), labels, probability)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A face run trained for one step, and its folder of data."""
    root = tmp_path_factory.mktemp("evaluate")
    data = toy.faces(root / "data")
    overrides = [f"--config.data.faces={data}", "--config.data.batch.triplets=0", "--config.loss.fec_weight=0.0"]
    config = configuration.load("tests/helpers/experiments/teacher.py:smoke", overrides)
    train.train_and_evaluate(config, root / "run", progress=False)
    return root, config, data


@pytest.mark.portable
def test_a_run_of_faces_scores_clips_by_the_mean_over_their_frames(run):
    root, _, _ = run
    clips = toy.clips(root / "clips_data", frames=6, segments=2)
    scores = evaluate.evaluate(str(root / "run"), data=clips, split="dev", output=str(root / "said"))["dev"]
    said = np.load(root / "said/dev.npz")
    assert list(said["recording"]) == ["dev0", "dev1", "dev2"]
    assert said["label"].tolist() == [0, 1, 2]
    assert said["frames"].tolist() == [11, 11, 11]  # of 12, one has no face
    np.testing.assert_allclose(said["probability"].sum(1), 1)
    assert scores["accuracy"] == np.mean(said["probability"].argmax(1) == said["label"])
    assert not (root / "run/predictions/clips.npz").exists()


def test_mirror_images_are_averaged(run):
    _, config, data = run
    stage = tasks.make(config)
    variables = stage.init(jax.random.key(0), tasks.open_data(stage, data).spec())
    image = np.random.default_rng(0).integers(0, 256, (2, *[config.model.image_size] * 2, 3), np.uint8)
    there, back = (stage.predict(variables, {"image": x})["logits"] for x in (image, image[:, :, ::-1]))
    both = scoring.mirrored(stage.predict)(variables, {"image": image})["logits"]
    np.testing.assert_allclose(both, (there + back) / 2, atol=1e-6)
    with pytest.raises(UserError, match="mirror images are for runs of faces"):
        evaluate.Options(flip=True).check("audio")


def test_a_corpus_of_other_classes_is_scored_on_the_shared_ones(run, monkeypatch):
    root, _, data = run
    path = root / "run/result.json"
    result = json.loads(path.read_text())
    # As if it had been trained with the classes in reverse order.
    turned = result | {"class_names": [*result["class_names"][::-1][:-1], "bored"]}
    monkeypatch.setattr(run_folder, "class_names", lambda workdir: tuple(turned["class_names"]))
    evaluate.evaluate(str(root / "run"), data=data, split="dev", output=str(root / "turned"))
    said = np.load(root / "turned/dev.npz")
    assert said["probability"].shape[1] == len(result["class_names"]) - 1
    assert said["label"].max() < len(result["class_names"]) - 1
    entry = json.loads((root / "run/evaluation.json").read_text())
    assert entry["classes"] == turned["class_names"][:-1]
    assert expression_data.kind(data) == "faces"


def test_a_run_that_cannot_be_written_is_scored_into_another_folder(run, tmp_path, monkeypatch):
    root, _, data = run
    monkeypatch.setattr(evaluate.os, "access", lambda path, mode: False)
    before = (root / "run/evaluation.json").read_text() if (root / "run/evaluation.json").exists() else None
    evaluate.evaluate(str(root / "run"), data=data, split="dev", output=str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dev.npz", "evaluation.json"]
    assert before == ((root / "run/evaluation.json").read_text() if before is not None else None)
    with pytest.raises(UserError, match="run cannot be written: pass --output=DIR"):
        evaluate.evaluate(str(root / "run"), data=data, split="dev")
