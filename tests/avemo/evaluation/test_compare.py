import csv
import json

import numpy as np
import pytest

from avemo import metrics
from avemo.evaluation import compare
from media.errors import UserError


def traces_run(folder, noise, seed, recordings=6, frames=80, split="test"):
    """A run folder with saved traces: gold plus noise."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(recordings * frames, 2)).cumsum(0) * 0.1
    prediction = gold + noise * np.random.default_rng(seed).normal(size=gold.shape)
    save(
        folder,
        split,
        recording=np.array([f"r{i}" for i in range(recordings)]),
        length=np.full(recordings, frames),
        time=np.tile(np.arange(frames) / 25, recordings),
        prediction=prediction,
        target=gold,
        mask=np.ones(len(gold), bool),
    )
    return prediction, gold


def save(folder, split, **arrays):
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"task": "audiovisual"}')
    np.savez(folder / "predictions" / f"{split}.npz", **arrays)


def test_scores_differences_and_intervals(tmp_path):
    first, gold = traces_run(tmp_path / "a", 1.0, 1)
    second, _ = traces_run(tmp_path / "b", 0.2, 2)
    split, rows = compare.compare([tmp_path / "a", tmp_path / "b"])
    assert split == "test"
    table = {(row.run, row.metric): row for row in rows}
    for name, prediction in (("a", first), ("b", second)):
        expected = metrics.ccc(metrics.trace_moments(prediction, gold))
        assert table[name, "ccc_valence"].value == pytest.approx(expected[0], abs=1e-6)
        assert table[name, "ccc_mean"].value == pytest.approx(expected.mean(), abs=1e-6)
    row = table["b", "ccc_mean"]
    assert row.difference == pytest.approx(row.value - table["a", "ccc_mean"].value)
    assert 0 < row.difference_low < row.difference < row.difference_high
    assert row.low < row.value < row.high
    assert row.p == pytest.approx(2 / 2**6)  # all six recordings agree, so this is the smallest possible p
    assert table["a", "ccc_mean"].difference is None


def test_a_run_equals_itself(tmp_path):
    for name in ("a", "b"):
        traces_run(tmp_path / name, 0.5, 1)
    _, rows = compare.compare([tmp_path / "a", tmp_path / "b"])
    assert all(row.difference in (None, 0) for row in rows)
    assert all(row.p in (None, 1) for row in rows)


def test_emotions(tmp_path):
    labels = np.arange(30) % 3
    for name, wrong in (("a", 12), ("b", 3)):
        predicted = labels.copy()
        predicted[:wrong] = (predicted[:wrong] + 1) % 3
        probability = np.eye(3)[predicted]
        save(
            tmp_path / name,
            "dev",
            recording=np.array([f"r{i}" for i in range(30)]),
            label=labels,
            probability=probability,
        )
    split, rows = compare.compare([tmp_path / "a", tmp_path / "b"])
    assert split == "dev"
    assert [(r.run, round(r.value, 6)) for r in rows if r.metric == "accuracy"] == [("a", 0.6), ("b", 0.9)]


def test_files(tmp_path):
    traces_run(tmp_path / "x/run", 1.0, 1)
    traces_run(tmp_path / "y/run", 0.2, 2)
    result = compare.run([tmp_path / "x/run", tmp_path / "y/run"], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out/compare.json").read_text()) == result
    with (tmp_path / "out/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result["rows"])
    assert rows[1]["run"].endswith("y/run")  # equal names are told apart by their paths
    text = (tmp_path / "out/compare.md").read_text()
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "ccc_recording_arousal" in text


def test_runs_that_cannot_be_compared(tmp_path):
    traces_run(tmp_path / "a", 1.0, 1)
    traces_run(tmp_path / "b", 1.0, 1, split="dev")
    save(
        tmp_path / "c",
        "test",
        recording=np.arange(4).astype(str),
        label=np.arange(4) % 2,
        probability=np.eye(2)[[0, 1, 0, 1]],
    )
    for folders, text in (
        (["a"], "two or more"),
        (["a", "b"], "in common"),
        (["a", "c"], "no metric in common"),
        (["a", "nothing"], "not a run folder"),
    ):
        with pytest.raises(UserError, match=text):
            compare.compare([tmp_path / name for name in folders])


def unlabel(folder, reason="no record has a label"):
    """Makes a run's test split unlabelled: predictions without gold, and a line in result.json."""
    path = folder / "predictions/test.npz"
    arrays = dict(np.load(path))
    np.savez(
        path, **{**arrays, "mask": np.zeros_like(arrays["mask"]), "target": np.full_like(arrays["target"], np.nan)}
    )
    (folder / "result.json").write_text(json.dumps({"metrics": {"dev": {}}, "unscored": {"test": reason}}))


def test_a_split_that_could_not_be_scored_is_left_out_with_its_reason(tmp_path):
    for number, name in enumerate("ab"):
        traces_run(tmp_path / name, 0.5, number, split="dev")
        traces_run(tmp_path / name, 0.5, number, split="test")
    unlabel(tmp_path / "b")
    folders = [tmp_path / "a", tmp_path / "b"]
    result = compare.run(folders, str(tmp_path / "out"))
    assert result["split"] == "dev"
    assert result["unscored"] == ["b was not scored on test: no record has a label"]
    assert result["unscored"][0] in (tmp_path / "out/compare.md").read_text()
    with pytest.raises(UserError, match="b was not scored on test: no record has a label"):
        compare.run(folders, split="test")
