"""Seeds trained together equal seeds alone, by loop, by `vmap` and over devices."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from avemo import configuration, tasks
from avemo.ops import parallel
from avemo.runs import checkpoints
from avemo.training import seed_mesh, seeds_together, train
from helpers import toy
from helpers.sequences import recording as sequence
from helpers.sequences import write_features
from media import records

FIELDS = (
    *("steps=6", "log_every=2", "eval_every=2"),
    *("data.sequence_length=20", "data.sequence_hop=10", "data.delay=0.08", "data.eval_batch=8"),
    *("model.fusion=concat", "model.fusion_args.features=8", "model.temporal_args.features=8"),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    data = write_features(tmp_path_factory.mktemp("features"))
    overrides = [f"--config.{field}" for field in (*FIELDS, f"data.features={data}")]
    return configuration.load("configs/demo/fusion.py:smoke", overrides)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The configs of two seeds and the run folders of both, trained together."""
    configs = with_seeds(config, 2)
    workdirs = [epath.Path(tmp_path_factory.mktemp(f"seed{number}") / "run") for number in range(2)]
    assert seeds_together.train_seeds(configs, workdirs) == [None, None]
    return configs, workdirs


def with_seeds(config, count):
    """The config with seeds 0, 1, …"""
    configs = [config.copy_and_resolve_references() for _ in range(count)]
    for seed, one in enumerate(configs):
        one.seed = seed
    return configs


def seeds(configs, folder, over):
    """The program that trains these configs together."""
    stage = tasks.make(configs[0])
    workdirs = [epath.Path(folder / str(config.seed)) for config in configs]
    for workdir in workdirs:
        workdir.mkdir(parents=True)
    return seeds_together.SeedsTogether(stage, tasks.open_data(stage), configs, workdirs, over)


def test_a_seed_trained_with_others_equals_its_run_alone(trained, tmp_path):
    configs, workdirs = trained
    alone = train.train_and_evaluate(configs[1], tmp_path / "alone", progress=False)
    result = json.loads((workdirs[1] / "result.json").read_text())
    assert result["evaluated_step"] == alone["evaluated_step"]
    assert result["parameters"] == alone["parameters"]
    assert result["data"] == alone["data"]
    for split in ("dev", "test"):
        assert result["metrics"][split] == pytest.approx(alone["metrics"][split], abs=1e-4)
    lines = [
        {(row["step"], row["split"]): row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
        for run in (workdirs[1], tmp_path / "alone")
    ]
    assert lines[0].keys() == lines[1].keys()
    for step in (2, 4, 6):
        assert lines[0][step, "train"]["loss"] == pytest.approx(lines[1][step, "train"]["loss"], abs=1e-4)
    # Seeds differ in more than their name.
    other = json.loads((workdirs[0] / "result.json").read_text())
    assert abs(other["metrics"]["test"]["ccc_mean"] - result["metrics"]["test"]["ccc_mean"]) > 1e-3


def test_modalities_alone_are_scores_of_the_same_checkpoint_with_the_other_masked(trained):
    (config, _), (workdir, _) = trained
    result = json.loads((workdir / "result.json").read_text())
    _, _, variables = checkpoints.load(workdir)
    stage = tasks.make(config)
    mapped = parallel.map_step(
        lambda v, b, _: stage.predict(v, b), config.parallel, donate_state=False, gather_outputs=True
    )

    def audio_only(values, batch):
        batch = {**batch, "visual_mask": np.zeros_like(batch["visual_mask"]), "visual": batch["visual"] * 0 + 7}
        return parallel.unshard(mapped(values, parallel.shard_batch(batch), {}))

    metrics, _ = tasks.open_data(stage).score(audio_only, variables, "test", tasks.Scoring())
    assert result["modalities"]["audio"]["test"] == pytest.approx(metrics, abs=1e-5)
    assert metrics["ccc_mean"] != pytest.approx(result["metrics"]["test"]["ccc_mean"], abs=1e-4)


def test_a_seed_that_breaks_is_named_and_leaves_the_others():
    rows = [(4, {"loss": np.array([0.5, 0.4])}), (5, {"loss": np.array([0.5, np.nan])})]
    rows.append((6, {"loss": np.array([0.4, np.nan])}))
    assert seeds_together.failure(seeds_together.of_seed(rows, 0)) is None
    assert "step 5" in seeds_together.failure(seeds_together.of_seed(rows, 1))


def test_seeds_by_vmap_equal_seeds_by_loop(config, monkeypatch, tmp_path):
    """The form for accelerators gives the CPU's numbers."""
    configs = with_seeds(config, 2)
    results = []
    for backend in ("cpu", "gpu"):
        with monkeypatch.context() as patch:
            program = seeds(configs, tmp_path / backend, None)
            patch.setattr(jax, "default_backend", lambda backend=backend: backend)
            for _ in range(3):
                values = program.step(*program.draw())
            results.append(jax.device_get((program.states[1].params, values["loss"])))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_seeds_spread_over_devices_equal_one_device(config, tmp_path):
    """Three seeds on one device, on two (two seeds and one), on eight (one each), and with the batch shared among
    eight."""
    configs = with_seeds(config, 3)
    assert seed_mesh.mesh(3).shape == {"seeds": 3, "batch": 1}
    assert seed_mesh.of_devices(5, jax.devices()[:4]).shape["seeds"] == 3
    assert seed_mesh.mesh(1) is None
    meshes = [seed_mesh.of_devices(3, jax.devices()[:count]) for count in (1, 2, 8)]
    results = []
    for over in (*meshes, None):
        program = seeds(configs, tmp_path / str(len(results)), over)
        for _ in range(3):
            values = program.step(*program.draw())
        states = program.states
        evaluated = program.score(states[1].variables, ["dev"])["dev"]
        trained = jax.tree.map(lambda x: np.asarray(x)[:3], (states[1].params, values["loss"][0]))
        results.append((trained, [metrics["ccc_mean"] for metrics, _ in evaluated]))
        used = {d for leaf in jax.tree.leaves(states[1].params) for d in leaf.sharding.device_set}
        assert len(used) == (over.size if over else 8)
    assert len(set(results[0][1])) == 3
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Configs of two folds by group, of three named streams."""
    rng, recordings = np.random.default_rng(0), []
    for number in range(6):
        one = sequence(rng, f"r{number}", frames=30)
        streams = {"voice": one.pop("audio"), "face": one.pop("visual"), "words": one["targets"].copy()}
        masks = {"voice_mask": one.pop("audio_mask"), "face_mask": one.pop("visual_mask")}
        masks["words_mask"] = np.ones(30, bool)
        recordings.append({**one, **streams, **masks, "group": "AB"[number // 3]})
    schema = records.stream_features({"voice": 4, "face": 4, "words": 2})
    data = toy.write(tmp_path_factory.mktemp("folds"), "features", schema, {"dev": recordings})
    fields = [f"--config.{field}" for field in (*FIELDS, f"data.features={data}", "data.stream_scores=on")]
    fields += ["--config.data.fold_by=group", "--config.data.dev_part=0/3", "--config.model.streams=voice,face,words"]
    return [
        configuration.load("configs/demo/fusion.py:smoke", [*fields, f"--config.data.fold={fold}/2"]) for fold in (0, 1)
    ]


def test_folds_of_named_streams_train_together(folds, tmp_path):
    workdirs = [epath.Path(tmp_path / f"fold_{fold}") for fold in (0, 1)]
    assert seeds_together.train_seeds(folds, workdirs) == [None, None]
    for workdir, tested in zip(workdirs, ([0, 1, 2], [3, 4, 5]), strict=True):
        said = np.load(workdir / "predictions" / "test.npz")
        assert list(said["recording"]) == [f"r{n}" for n in tested]
        assert list(said["streams"]) == ["voice", "face", "words"]
        result = json.loads((workdir / "result.json").read_text())
        assert set(result["modalities"]) == set(result["without"]) == {"voice", "face", "words"}
        alone = np.load(workdir / "predictions" / "modalities" / "voice" / "test.npz")
        assert list(alone["recording"]) == list(said["recording"])
        assert np.abs(alone["prediction"] - said["prediction"]).max() > 1e-4
        assert not (workdir / "checkpoints").exists()


@pytest.mark.slow
def test_a_fold_trained_with_others_equals_its_run_alone(folds, tmp_path):
    workdirs = [epath.Path(tmp_path / f"fold_{fold}") for fold in (0, 1)]
    assert seeds_together.train_seeds(folds, workdirs) == [None, None]
    alone = train.train_and_evaluate(folds[1], tmp_path / "alone", progress=False)
    result = json.loads((workdirs[1] / "result.json").read_text())
    assert result["metrics"]["test"] == pytest.approx(alone["metrics"]["test"], abs=1e-4)
