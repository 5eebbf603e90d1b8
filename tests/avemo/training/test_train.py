import json
import os
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

from avemo import configuration, tasks
from avemo.ops import device_axis, parallel
from avemo.runs import checkpoints, metrics_log, run_folder
from avemo.training import single, train
from avemo.training.state import initial_state
from avemo.training.step import make_step, seed_constant
from helpers import toy
from media.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {"faces": toy.faces(folder), "triplets": toy.triplets(folder)}


def teacher(data, *overrides):
    folders = [f"--config.data.{name}={path}" for name, path in data.items()]
    return configuration.load("tests/helpers/experiments/teacher.py:smoke", [*folders, *overrides])


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """An uninterrupted run of four steps."""
    workdir = tmp_path_factory.mktemp("straight")
    config = teacher(data, "--config.steps=4", "--config.eval_every=2")
    return config, workdir, train.train_and_evaluate(config, workdir, progress=False)


def values(workdir):
    return [
        {k: v for k, v in line.items() if k != "wall_time"}
        for line in metrics_log.read(workdir / "metrics.jsonl")
        if line["split"] != "timing"
    ]


def test_a_run_folder_explains_itself(straight):
    config, workdir, result = straight
    assert {"config.json", "metrics.jsonl", "result.json", "checkpoints", "predictions"} <= set(os.listdir(workdir))
    assert json.loads((workdir / "result.json").read_text())["metrics"] == result["metrics"]
    assert 0 <= result["metrics"]["dev"]["accuracy"] <= 1
    assert {line["split"] for line in metrics_log.read(workdir / "metrics.jsonl")} == {"train", "dev", "timing"}
    loaded, step, variables = checkpoints.load(workdir, "latest")
    assert step == 4
    assert configuration.difference(loaded, config) == []
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_a_complete_run_is_not_trained_again(straight):
    config, workdir, result = straight
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train.train_and_evaluate(config, workdir)["metrics"] == result["metrics"]
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.portable
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(straight, tmp_path):
    config, workdir, _ = straight
    # A killed run leaves the first checkpoint, and lines that were logged after it.
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/4")
    (tmp_path / "run/result.json").unlink()
    train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert values(tmp_path / "run") == values(workdir)
    for a, b in zip(
        *(jax.tree.leaves(checkpoints.load(w, "latest")[2]) for w in (workdir, tmp_path / "run")), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(straight, tmp_path, caplog):
    config, workdir, _ = straight
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    for path in (tmp_path / "run/checkpoints/4/state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert "trying the one before" in caplog.text
    assert values(tmp_path / "run") == values(workdir)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.portable
def test_the_number_of_devices_does_not_change_the_result(data, mode):
    # SGD, because Adam divides by the gradient's size and turns rounding in a gradient near zero into a full step.
    sgd = ("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.05")
    config = teacher(data, *sgd, f"--config.parallel={mode}")
    stage = tasks.make(config)
    data_ = tasks.open_data(stage)
    batch = next(iter(data_.batches()))

    def run(devices):
        state, tx = initial_state(stage, data_, config)
        step, seed = make_step(stage, config, tx), seed_constant(config)
        if devices == 1:
            state, metrics = jax.pmap(
                step, axis_name=device_axis.AXIS, in_axes=(None, 0, None), out_axes=None, devices=jax.devices()[:1]
            )(state, jax.tree.map(lambda x: x[None], batch), seed)
        else:
            state, metrics = parallel.map_step(step, mode)(
                state, parallel.shard_batch(batch, mode), parallel.replicate(seed)
            )
        return jax.device_get((state, metrics))

    (one, one_metrics), (eight, eight_metrics) = run(1), run(8)
    for name, value in one_metrics.items():
        np.testing.assert_allclose(eight_metrics[name], value, rtol=2e-4, err_msg=name)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one.params), jax.tree.leaves(eight.params), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=2e-5, err_msg=jax.tree_util.keystr(path))


def test_bad_runs_are_refused_with_the_remedy(straight, data, tmp_path):
    config, workdir, _ = straight
    other = teacher(data, "--config.steps=4", "--config.eval_every=2", "--config.seed=5")
    with pytest.raises(UserError, match=r"another config.*seed: 0 -> 5"):
        train.train_and_evaluate(other, workdir)
    with pytest.raises(UserError, match="num_classes=8"):
        train.train_and_evaluate(teacher(data, "--config.model.num_classes=7"), tmp_path / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --workdir"):
        train.train_and_evaluate(config, tmp_path / "file")


def test_changed_shards_are_noticed_on_resume(data, tmp_path):
    folder = tmp_path / "data"
    copies = {name: str(shutil.copytree(path, folder / name)) for name, path in data.items()}
    config = teacher(copies, "--config.steps=2")
    run_folder.prepare_workdir(config, tmp_path / "run")
    run_folder.check_fingerprints(tasks.open_data(tasks.make(config)).folders, tmp_path / "run")
    shutil.rmtree(folder / "faces")
    shutil.move(toy.faces(tmp_path / "new", train=40), folder / "faces")
    with pytest.raises(UserError, match=r"'faces'.*changed since"):
        run_folder.check_fingerprints(tasks.open_data(tasks.make(config)).folders, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_with_the_step(data, tmp_path):
    config = teacher(
        data,
        *("--config.steps=3", "--config.log_every=3", "--config.eval_every=3"),
        *("--config.optimizer.learning_rate=1e30", "--config.optimizer.clip_norm=0.0"),
    )
    with pytest.raises(UserError, match=r"at step (\d): stopped.*nonfinite.json") as error:
        train.train_and_evaluate(config, tmp_path / "run", progress=False)
    found = json.loads((tmp_path / "run/nonfinite.json").read_text())
    assert f"at step {found['step']}:" in str(error.value)
    batches = iter(tasks.open_data(tasks.make(config)).batches())
    batch = [next(batches) for _ in range(found["step"])][-1]
    labels = [int(record["name"].removeprefix("faces")) % 8 for record in found["records"]["faces"]]
    np.testing.assert_array_equal(labels, batch["faces"]["label"])
    assert len(found["records"]["triplets"]) == len(batch["triplets"]["type"])


def test_the_first_step_without_a_finite_gradient_is_named(tmp_path):
    row = {"loss": np.float32(1), "gradient_norm": np.float32(1)}
    pending = [(7, row), (8, row | {"gradient_norm": np.float32(np.nan)}), (9, row | {"loss": np.float32(np.inf)})]
    data = mock.Mock(records=lambda number: {"faces": [{"index": number, "name": "a"}]})
    with pytest.raises(UserError, match="the gradient_norm is nan at step 8"):
        single.finite_rows(pending, tmp_path, data)
    assert json.loads((tmp_path / "nonfinite.json").read_text())["records"]["faces"][0]["index"] == 7


@pytest.mark.slow
def test_a_batch_that_divides_by_nothing_trains_in_micro_batches(data, tmp_path):
    config = teacher(data, "--config.data.batch.faces=6", "--config.accumulate=2", "--config.steps=2")
    result = train.train_and_evaluate(config, tmp_path, progress=False)
    assert result["step"] == 2
    assert all(
        np.isfinite(line["loss"]) for line in metrics_log.read(tmp_path / "metrics.jsonl") if line["split"] == "train"
    )
