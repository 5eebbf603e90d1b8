"""Every config loads, refuses unknown variants, and its `:smoke` variant trains one real step."""

import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import launch
from avemo import configuration
from avemo.data import augment
from avemo.evaluation import extract
from avemo.runs import checkpoints
from avemo.training import train
from helpers import toy
from media.errors import UserError

FILES = sorted(
    str(p) for folder in ("paper", "demo") for p in pathlib.Path("configs", folder).glob("*.py") if p.stem != "__init__"
)
# The demo's changes besides numbers; docs/reproduce.md says why.
NOT_NUMBERS = {
    "synthetic": {"optimizer.name", "optimizer.schedule", "model.dtype"},
    "real": {"optimizer.name", "optimizer.schedule", "model.dtype", "loss.labels", "best_metric"},
}


@pytest.mark.parametrize("path", FILES)
def test_a_config_says_what_it_is_and_is_json(path):
    config = configuration.load(path)
    assert configuration.difference(config, configuration.load(path)) == []
    json.dumps(configuration.to_dict(config))
    docstring = pathlib.Path(path).read_text().split('"""')[1]
    assert len(docstring.splitlines()) > 2
    for part in ("python launch.py train", "Expected:", "Hardware:", "Variants:"):
        assert part in docstring


ALL = sorted(str(p) for p in pathlib.Path("configs").glob("*/*.py") if p.stem != "__init__")


@pytest.mark.parametrize("path", ALL)
def test_a_config_names_its_variants_and_refuses_others(path):
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    text = module.__doc__
    assert all(part in text for part in ("python launch.py", "Expected:", "Hardware:", "Variants:"))
    if "Variants: as in" in text:  # the sweeps over cached features share theirs
        text = importlib.import_module("configs.ablations.fusion").__doc__
    for variant in module.VARIANTS:
        configuration.load(f"{path}:{variant}")
        assert not variant or f"`{variant}`" in text, variant
    default = inspect.signature(module.get_config).parameters["variant"].default
    assert default == module.VARIANTS[0]
    for wrong in ("smok", "synthetik", "Smoke", "none"):
        with pytest.raises(UserError, match=f"unknown variant of {path} '{wrong}'.*Known: .*smoke"):
            configuration.load(f"{path}:{wrong}")


@pytest.mark.parametrize("path", [p for p in FILES if "demo" in p])
def test_a_demo_config_without_a_variant_is_the_synthetic_one(path):
    assert configuration.difference(configuration.load(path), configuration.load(f"{path}:synthetic")) == []


@pytest.mark.parametrize("variant", ["synthetic", "real"])
@pytest.mark.parametrize("stage", ["teacher", "student", "audio", "fusion"])
def test_the_demo_differs_from_the_paper_in_numbers(stage, variant):
    paper = configuration.load(f"configs/paper/{stage}.py")
    demo = configuration.load(f"configs/demo/{stage}.py:{variant}")
    for line in configuration.difference(paper, demo):
        name, _, values = line.partition(": ")
        if name not in NOT_NUMBERS[variant]:
            old, _, new = values.partition(" -> ")
            assert {type(eval(v)) for v in (old, new)} <= {int, float}, line


@pytest.fixture(scope="module")
def spine(tmp_path_factory):
    """Toy corpora, and a folder for the runs."""
    folder = tmp_path_factory.mktemp("spine")
    return {
        "runs": folder / "runs",
        "faces": toy.faces(folder),
        "triplets": toy.triplets(folder),
        "unlabelled": toy.faces(folder, labelled=False, name="unlabelled"),
        "clips": toy.clips(folder),
    }


SMALL = {
    "expression": ["width=0.125", "neck_channels=16", "dense_layers=1", "dense_growth=8"],
    "audio": ["width=0.0625", "fc_dim=32"],
    "fusion": [],
}


@pytest.mark.parametrize("faces", ["small", pytest.param("demo", marks=pytest.mark.slow)])
@pytest.mark.portable
def test_the_whole_spine_at_toy_size(spine, faces):
    """With a face network of few layers, and with the demo's, which takes minutes to compile."""
    spine = {**spine, "runs": spine["runs"] / faces}

    def smoke(stage, small, *overrides, **data):
        folder = "tests/helpers/experiments" if small == "expression" and faces == "small" else "configs/demo"
        fields = [] if folder.startswith("tests") else [f"--config.model.{field}" for field in SMALL[small]]
        fields += [f"--config.data.{name}={path}" for name, path in data.items()]
        config = configuration.load(f"{folder}/{stage}.py:smoke", [*fields, *overrides])
        return train.train_and_evaluate(config, spine["runs"] / stage, progress=False)

    stills = {"faces": spine["faces"], "triplets": spine["triplets"]}
    teacher = smoke("teacher", "expression", **stills)
    assert set(teacher["metrics"]["dev"]) >= {"accuracy", "uar", "macro_f1", "triplet_accuracy"}
    from_teacher = f"--config.teacher={spine['runs'] / 'teacher'}"
    student = smoke("student", "expression", from_teacher, **stills, unlabelled=spine["unlabelled"])
    assert set(student["metrics"]["dev"]) >= {"accuracy", "teacher_accuracy", "agreement"}
    assert student["metrics"]["dev"]["teacher_accuracy"] == teacher["metrics"]["dev"]["accuracy"]
    assert student["weights"]["teacher"]
    audio = smoke("audio", "audio", clips=spine["clips"])
    assert set(audio["metrics"]["dev"]) >= {"ccc_valence", "ccc_arousal", "ccc_recording_mean"}
    runs = [str(spine["runs"] / name) for name in ("student", "audio")]
    folder = extract.extract(runs, spine["clips"], str(spine["runs"] / "features"), progress=False)
    assert extract.extract(runs, spine["clips"], str(spine["runs"] / "features"), progress=False) == folder
    # Two more steps show that the program is not compiled for the first step only.
    steps = ("--config.steps=3", "--config.log_every=3", "--config.eval_every=3")
    fusion = smoke("fusion", "fusion", *steps, features=str(folder))
    assert -1 <= fusion["metrics"]["dev"]["ccc_mean"] <= 1
    from avemo.data import features
    from avemo.evaluation import evaluate

    recordings, _ = features.load(str(folder), "dev")
    assert [len(r) for r in recordings] == [120] * 3
    assert not recordings[0].visual_mask[65:70].any()
    assert not recordings[0].visual[65:70].any()
    assert evaluate.evaluate(spine["runs"] / "fusion")["dev"] == pytest.approx(fusion["metrics"]["dev"], abs=1e-6)

    # As long as no step changes anything, training from frames and log-mel equals the run on cached features.
    start = (f"--config.fusion={spine['runs'] / 'fusion'}", "--config.data.delay=1.0")
    clips = {"clips": spine["clips"]}
    still = smoke("end_to_end", "fusion", *start, "--config.optimizer.learning_rate=0.0", **clips)
    assert still["metrics"]["dev"] == pytest.approx(fusion["metrics"]["dev"], abs=1e-4)
    assert set(still["weights"]) == {"fusion", "visual", "audio"}
    frozen = (*start, "--config.optimizer.freeze=('^audio/',)", "--config.best_metric=")
    config = configuration.load("configs/demo/end_to_end.py:smoke", [*frozen, f"--config.data.clips={spine['clips']}"])
    train.train_and_evaluate(config, spine["runs"] / "tuned", progress=False)
    before, after = (checkpoints.load(spine["runs"] / n, "latest")[2]["params"] for n in ("end_to_end", "tuned"))
    for part, moved in (("visual", True), ("fusion", True), ("audio", False)):
        changes = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before[part], after[part])), strict=True)]
        assert (max(changes) > 0) == moved, part
        taken = checkpoints.load(spine["runs"] / "tuned" / "parts" / part)[2]["params"]
        jax.tree.map(np.testing.assert_array_equal, taken, after[part])


PARAMETERS = {"teacher": 15_556_008, "student": 15_556_008, "audio": 72_141_184 + 2 * 129}


def in_another_process(*arguments):
    """Runs the command line in a separate process with one device: eight copies of the published sizes are too much."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "launch.py", *arguments], env=environment, check=False, capture_output=True, text=True
    )


def test_the_papers_fusion_trains_one_real_step(spine, tmp_path):
    # Random features suffice: this tests shapes and a finite step, not a score.
    rows = [record for record, _ in spine_features(spine, tmp_path)]
    assert rows
    command = ["train", "--config=configs/paper/fusion.py:smoke", f"--workdir={tmp_path / 'fusion'}"]
    assert launch.main([*command, f"--config.data.features={tmp_path / 'features'}"]) == 0
    assert json.loads((tmp_path / "fusion/result.json").read_text())["step"] == 1


def spine_features(spine, folder):
    """Writes a features data set of random features for the toy clips' recordings, and yields its records."""
    from avemo.data.shards import Shards
    from media import records

    rng = np.random.default_rng(0)
    splits = {}
    for split in ("train", "dev"):
        source = Shards(spine["clips"], split)
        rows = []
        for index in range(0, len(source), 2):
            record = source[index]
            keep = ("recording", "subject", "fps", "time", "audio_mask", "targets", "target_mask", "raters", "label")
            length = len(record["time"])
            rows.append(
                {
                    **{k: record[k] for k in keep},
                    "visual": rng.normal(size=(length, 128)).astype(np.float32),
                    "audio": rng.normal(size=(length, 128)).astype(np.float32),
                    "visual_mask": record["face_mask"],
                }
            )
        splits[split] = rows
    toy.write(folder, "features", records.extracted_features(128, 128, num_raters=1), splits)
    yield from ((row, split) for split, rows in splits.items() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["teacher", "student", "audio"])
def test_the_paper_trains_one_real_step(stage, spine, tmp_path):
    def run(stage, *overrides):
        parts = {"audio": ["clips"], "teacher": ["faces", "triplets"]}.get(stage, ["faces", "triplets", "unlabelled"])
        data = [f"--config.data.{name}={spine[name]}" for name in parts]
        workdir = f"--workdir={tmp_path / stage}"
        done = in_another_process("train", f"--config=configs/paper/{stage}.py:smoke", workdir, *data, *overrides)
        assert done.returncode == 0, done.stderr

    if stage == "student":
        run("teacher")
        run("student", f"--config.teacher={tmp_path / 'teacher'}")
    else:
        # The toy clips are shorter than the raters' delay.
        run(stage, *(["--config.data.delay=0.0"] if stage == "audio" else []))
    result = json.loads((tmp_path / stage / "result.json").read_text())
    assert result["step"] == 1
    assert result["parameters"] == PARAMETERS[stage]


def test_configs_switch_new_augmentation_off_and_the_noisy_student_on():
    off = configuration.load("configs/paper/student.py").data.augment
    assert (off.erase, off.operations, off.magnitude) == (0.0, 0, 0.0)
    on = configuration.load("configs/paper/student.py:noisy").data.augment
    assert on.erase > 0
    assert on.operations > 0
    assert on.magnitude > 0
    augment.check(on)
    assert not any(configuration.load("configs/paper/audio.py").data.augment.values())
