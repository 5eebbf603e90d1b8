"""Damaged checkpoints, other device counts, a damaged compilation cache."""

import logging
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from avemo import configuration
from avemo.ops import parallel
from avemo.runs import checkpoints, metrics_log, run_folder
from avemo.training import train
from helpers import sequences
from media.errors import UserError

STEPS = ["--config.steps=4", "--config.log_every=1", "--config.eval_every=2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    data = sequences.write_features(tmp_path_factory.mktemp("data"))
    return configuration.load("tests/helpers/experiments/fusion.py", [f"--config.data.features={data}", *STEPS])


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """A run of four steps with checkpoints at 2 and 4."""
    workdir = tmp_path_factory.mktemp("straight")
    train.train_and_evaluate(config, workdir, progress=False)
    return workdir


def values(workdir):
    lines = [line for line in metrics_log.read(workdir / "metrics.jsonl") if line["split"] != "timing"]
    return [{k: v for k, v in line.items() if k != "wall_time"} for line in lines]


def assert_same_run(a, b):
    assert values(a) == values(b)
    for x, y in zip(*(jax.tree.leaves(checkpoints.load(w, "latest")[2]) for w in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def emptied(folder):
    for path in files(folder):
        path.write_bytes(b"")


def cut(folder):
    for path in files(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_metadata(folder):
    for path in files(folder):
        if "METADATA" in path.name:
            path.unlink()


def only(name, damage):
    """Damages the item `name` of a checkpoint."""
    return lambda folder: damage(folder / name)


def half_deleted(folder):
    shutil.rmtree(folder / "state")


DAMAGE = {
    "all files empty": emptied,
    "all files cut": cut,
    "state empty": only("state", emptied),
    "state cut": only("state", cut),
    "iterator empty": only("data", emptied),
    "state without metadata": only("state", no_metadata),
    "iterator gone": only("data", shutil.rmtree),
    "half deleted": half_deleted,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_latest_checkpoint_falls_back_to_the_one_before(name, config, straight, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    DAMAGE[name](run / "checkpoints/4")
    train.train_and_evaluate(config, run, progress=False)
    assert "checkpoint 4 of" in caplog.text
    assert "trying the one before" in caplog.text
    assert_same_run(straight, run)
    # The damaged one is kept, and its step was saved again.
    assert (run / "damaged_checkpoints/4").is_dir()
    assert checkpoints.load(run, "latest")[1] == 4


@pytest.mark.parametrize("damage", [emptied, cut, shutil.rmtree])
@pytest.mark.parametrize("step", [2, 4])
def test_damaged_metrics_of_a_checkpoint_do_not_stop_a_run(damage, step, config, straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    damage(run / f"checkpoints/{step}/metrics")
    train.train_and_evaluate(config, run, progress=False)
    assert_same_run(straight, run)


def test_an_older_checkpoint_that_is_half_deleted_does_not_stop_a_run(config, straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    for item in ("metrics", "state"):
        shutil.rmtree(run / "checkpoints/2" / item)
    train.train_and_evaluate(config, run, progress=False)
    assert_same_run(straight, run)
    assert checkpoints.load(run)[1] == 4


def test_no_readable_checkpoint_is_an_error_that_says_so(config, straight, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "result.json").unlink()
    emptied(run / "checkpoints/2")
    emptied(run / "checkpoints/4")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: use a new --workdir"):
        train.train_and_evaluate(config, run, progress=False)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "4"]
    # The error says all of it; where the input lies is said before.
    assert {r.name for r in caplog.records if r.name.startswith("avemo")} <= {"avemo.data.feed"}


@pytest.fixture
def saved(config, tmp_path):
    """A run folder with checkpoints 1 and 2 of a small state, and the state."""
    run_folder.prepare_workdir(config, tmp_path)
    state = {"step": np.int32(2), "params": {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}}
    with checkpoints.manager(tmp_path) as manager:
        for step in (1, 2):
            checkpoints.save(manager, step, state, {"position": step}, config, None)
        manager.wait_until_finished()
    return tmp_path, state


def assert_untouched(folder, state):
    with checkpoints.manager(folder) as manager:
        assert sorted(manager.all_steps()) == [1, 2]
        step, restored, data = checkpoints.restore_latest(manager, jax.tree.map(jax.numpy.zeros_like, state))
    assert (step, data) == (2, {"position": 2})
    np.testing.assert_array_equal(restored["params"]["w"], state["params"]["w"])


@pytest.mark.parametrize(
    ("params", "difference"),
    [
        ({"w": np.zeros((3, 4)), "b": np.zeros(4)}, "params/b is new"),
        ({"v": np.zeros((3, 4))}, "params/v is new; params/w is gone"),
        ({"w": np.zeros((3, 5))}, r"params/w was \[3, 4\], is \[3, 5\]"),
    ],
)
def test_another_model_is_refused_by_its_parameters_and_costs_no_checkpoint(params, difference, saved):
    folder, state = saved
    like = jax.tree.map(lambda x: jax.numpy.asarray(x, jax.numpy.float32), {**state, "params": params})
    with (
        checkpoints.manager(folder) as manager,
        pytest.raises(UserError, match=rf"checkpoint 2 of .* another model \({difference}\).*Nothing was deleted"),
    ):
        checkpoints.restore_latest(manager, like)
    assert_untouched(folder, state)


def test_a_file_that_the_storage_cannot_read_is_not_damage(saved):
    folder, state = saved
    path = folder / "checkpoints/2/data/metadata"
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(path)  # opening it is a file-system error, even for root
    with checkpoints.manager(folder) as manager, pytest.raises(UserError, match=r"storage fails .*Nothing was deleted"):
        checkpoints.restore_latest(manager, state)
    path.unlink()
    path.write_bytes(content)
    assert_untouched(folder, state)


def test_a_connection_that_breaks_is_not_damage(saved, monkeypatch):
    folder, state = saved

    def breaks(*_, **__):
        raise ConnectionResetError(104, "Connection reset by peer")

    with checkpoints.manager(folder) as manager, monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", breaks)
        for read in (lambda: checkpoints.restore_latest(manager, state), lambda: checkpoints.load(folder, "latest")):
            with pytest.raises(UserError, match=r"checkpoint 2 of .*Connection reset by peer.*Nothing was deleted"):
                read()
    assert_untouched(folder, state)


def test_a_checkpoint_that_is_damaged_twice_is_kept_twice(saved, config):
    folder, state = saved
    like = jax.tree.map(jax.numpy.zeros_like, state)
    for _ in range(2):
        emptied(folder / "checkpoints/2/state")
        with checkpoints.manager(folder) as manager:
            assert checkpoints.restore_latest(manager, like)[0] == 1
            checkpoints.save(manager, 2, state, {"position": 2}, config, None)
            manager.wait_until_finished()
    assert sorted(path.name for path in (folder / "damaged_checkpoints").iterdir()) == ["2", "2.1"]
    assert_untouched(folder, state)


def flip(path, seed):
    """Flips one bit."""
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_damage(saved, caplog):
    folder, state = saved
    like = jax.tree.map(jax.numpy.zeros_like, state)
    whole = {path: path.read_bytes() for path in files(folder / "checkpoints/2")}
    damaged = [path for path in whole if path.relative_to(folder / "checkpoints/2").parts[0] in ("state", "data")]
    assert len(damaged) > 5
    for seed, path in enumerate(damaged):
        flip(path, seed)
        with pytest.raises(UserError, match=r"checkpoint 2 of .* cannot be read .*not as it was written"):
            checkpoints.load(folder, "latest")
        with checkpoints.manager(folder) as manager:
            step, restored, _ = checkpoints.restore_latest(manager, like)
        assert step == 1
        np.testing.assert_array_equal(restored["params"]["w"], state["params"]["w"])
        kept = folder / "damaged_checkpoints/2"
        assert len(files(kept)) == len(whole)
        kept.rename(folder / "checkpoints/2")
        path.write_bytes(whole[path])
        assert f"{path.relative_to(folder / 'checkpoints/2')} is not as it was written" in caplog.text
    assert_untouched(folder, state)


def test_a_checkpoint_without_digests_opens_as_before(saved):
    folder, state = saved
    for path in folder.glob("checkpoints/*/SHA256SUMS"):
        path.unlink()
    assert_untouched(folder, state)


def test_flipped_metrics_do_not_choose_the_best_checkpoint(config, tmp_path):
    run_folder.prepare_workdir(config, tmp_path)
    state = {"params": {"w": np.zeros(3, np.float32)}, "model_state": {}}
    for step, score in ((1, 0.9), (2, 0.1)):
        with checkpoints.manager(tmp_path, "dev/ccc_mean") as manager:
            checkpoints.save(manager, step, state, {}, config, {"dev/ccc_mean": score})
    path = tmp_path / "checkpoints/2/metrics/metrics"
    path.write_text(path.read_text().replace("0.1", "9.1"))
    with checkpoints.manager(tmp_path, "dev/ccc_mean") as manager:
        assert manager.best_step() == 1
    assert (tmp_path / "damaged_checkpoints/2.metrics/metrics").exists()
    assert checkpoints.load(tmp_path)[1] == 1


@pytest.mark.parametrize(("writers", "readers"), [(8, 1), (1, 8)])
def test_a_state_saved_by_any_number_of_devices_is_restored_by_any_other(writers, readers, config, tmp_path):
    def on(devices):
        mesh = Mesh(np.asarray(jax.devices()[:devices]), (parallel.AXIS,), axis_types=(AxisType.Auto,))
        return lambda tree: jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

    state = {"step": np.int32(3), "params": {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}}
    with checkpoints.manager(tmp_path) as manager:
        checkpoints.save(manager, 3, on(writers)(state), {"position": 1}, config, None)
        manager.wait_until_finished()
        like = on(readers)(jax.tree.map(np.zeros_like, state))
        step, restored, data = checkpoints.restore_latest(manager, like)
    assert (step, data) == (3, {"position": 1})
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(x, y)
        assert len(y.sharding.device_set) == readers


@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
def test_a_damaged_compilation_cache_does_not_stop_a_run(config, straight, tmp_path, monkeypatch, caplog):
    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    caplog.set_level(logging.DEBUG, "jax._src.lru_cache")
    try:
        jax.config.update(settings[0], str(tmp_path / "cache"))
        jax.config.update(settings[1], 0.0)
        for name in ("first", "second"):
            compilation_cache.reset_cache()
            jax.clear_caches()
            train.train_and_evaluate(config, tmp_path / name, progress=False)
            assert_same_run(straight, tmp_path / name)
            if name == "first":
                entries = files(tmp_path / "cache")
                assert len(entries) > 2
                for number, path in enumerate(entries):
                    path.write_bytes(path.read_bytes()[: (number % 2) * path.stat().st_size // 2])
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert "Cache hit" in caplog.text
