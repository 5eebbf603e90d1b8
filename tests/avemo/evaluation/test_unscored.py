"""Splits without labels: training ends well and says so; evaluation skips them, and nothing else."""

import json

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from avemo import configuration, tasks
from avemo.evaluation import evaluate, scoring
from avemo.training import seeds_together, train
from helpers import sequences, toy
from media.errors import UserError

STEPS = ["--config.steps=2", "--config.log_every=1", "--config.eval_every=2"]


def features(folder, unlabelled=("test",)):
    """Features of three splits, some with neither traces nor emotions, like RECOLA's test split."""
    rng = np.random.default_rng(0)
    splits = {s: [sequences.recording(rng, f"{s}{n}") for n in range(3)] for s in ("train", "dev", "test")}
    for split in unlabelled:
        for record in splits[split]:
            record["targets"], record["target_mask"] = np.zeros((40, 2), np.float32), np.zeros(40, bool)
    return toy.write(folder, "features", toy.records.extracted_features(4, 4), splits)


def fusion(folder, *overrides):
    fields = [f"--config.data.features={folder}", *STEPS, *overrides]
    return configuration.load("tests/helpers/experiments/fusion.py", fields)


def test_a_run_whose_test_split_has_no_labels_ends_well_and_says_so(tmp_path, caplog):
    config = fusion(features(tmp_path / "data"))
    result = train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert list(result["metrics"]) == ["dev"]
    assert "no frame of this split has valence and arousal" in result["unscored"]["test"]
    assert json.loads((tmp_path / "run/result.json").read_text())["unscored"] == result["unscored"]
    assert "split 'test' is not scored" in caplog.text
    assert {path.stem for path in (tmp_path / "run/predictions").iterdir()} == {"dev"}
    # At a restart it is complete.
    assert train.train_and_evaluate(config, tmp_path / "run", progress=False) == json.loads(json.dumps(result))
    caplog.clear()
    scores = evaluate.evaluate(str(tmp_path / "run"))
    assert scores["dev"] == pytest.approx(result["metrics"]["dev"], abs=1e-6)
    assert list(scores) == ["dev"]
    assert "split 'test' is not scored" in caplog.text
    entry = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert entry["unscored"] == result["unscored"]
    with pytest.raises(UserError, match="no frame of this split"):
        evaluate.evaluate(str(tmp_path / "run"), split="test")


def test_a_run_without_labels_in_its_evaluation_split_keeps_its_latest_checkpoint(tmp_path):
    config = fusion(features(tmp_path / "data", ("dev", "test")))
    result = train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert result["metrics"] == {}
    assert set(result["unscored"]) == {"dev", "test"}
    assert result["evaluated_step"] == 2


def test_seeds_together_say_it_too(tmp_path):
    config = fusion(features(tmp_path / "data"))
    assert seeds_together.train_seeds([config], [tmp_path / "run"]) == [None]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert list(result["metrics"]) == list(result["modalities"]["audio"]) == ["dev"]
    assert list(result["unscored"]) == ["test"]


def test_one_seed_shares_any_batch_among_the_devices(tmp_path):
    """Six sequences, and recordings in threes, on eight devices."""
    config = fusion(features(tmp_path / "data", ()), "--config.data.batch.sequences=6", "--config.data.eval_batch=3")
    assert seeds_together.train_seeds([config], [tmp_path / "together"]) == [None]
    alone = train.train_and_evaluate(config, tmp_path / "alone", progress=False)
    together = json.loads((tmp_path / "together/result.json").read_text())
    for split in ("dev", "test"):
        assert together["metrics"][split] == pytest.approx(alone["metrics"][split], abs=1e-4)


@pytest.fixture(scope="module")
def faces_run(tmp_path_factory):
    """A face run trained for one step."""
    root = tmp_path_factory.mktemp("faces")
    overrides = [f"--config.data.faces={toy.faces(root / 'data')}", "--config.data.batch.triplets=0"]
    overrides += ["--config.loss.fec_weight=0.0"]
    config = configuration.load("tests/helpers/experiments/teacher.py:smoke", overrides)
    train.train_and_evaluate(config, root / "run", progress=False)
    return root


def test_unlabelled_faces_are_not_scored_as_wrong(faces_run):
    unlabelled = toy.faces(faces_run / "other", labelled=False)
    with pytest.raises(tasks.Unscorable, match="no face of split 'dev'"):
        evaluate.evaluate(str(faces_run / "run"), data=unlabelled, split="dev")
    with pytest.raises(UserError, match=r"no face of split|has labels to score"):
        evaluate.evaluate(str(faces_run / "run"), data=unlabelled)


def test_a_damaged_split_is_an_error_though_another_could_be_scored(tmp_path):
    folder = features(tmp_path / "data", ())
    config = fusion(folder)
    train.train_and_evaluate(config, tmp_path / "run", progress=False)
    (shard,) = tmp_path.glob("data/**/features-test*")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match="prepare the data set again"):
        evaluate.evaluate(str(tmp_path / "run"))
    assert list(evaluate.evaluate(str(tmp_path / "run"), split="dev")) == ["dev"]


def test_each_process_predicts_its_share_of_the_rows(monkeypatch):
    """Two processes of eight devices: 20 rows are 16 of one and 4 of the other, padded."""
    batch = {"x": np.arange(20, dtype=np.float32)}
    shares = []

    def gather(out, tiled):
        shares.append(out["y"])
        return {"y": np.concatenate(shares)}

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 16)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        predict = scoring.over_all_devices(lambda variables, batch: {"y": batch["x"] + variables["w"]}, "pmap")
        found = predict({"w": np.float32(1)}, batch)
    assert [len(share) for share in shares] == [16, 16]
    np.testing.assert_array_equal(found["y"], batch["x"] + 1)
