"""Preemption, two runs on one folder, a full disk."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from avemo import configuration
from avemo.cli import process
from avemo.runs import checkpoints, metrics_log, run_folder
from avemo.training import train
from avemo.training.prefetch import Prefetch
from helpers import sequences
from media.errors import Preempted, UserError

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    steps = ["--config.steps=5", "--config.log_every=2", "--config.eval_every=4"]
    data = sequences.write_features(tmp_path_factory.mktemp("data"))
    return configuration.load("tests/helpers/experiments/fusion.py", [f"--config.data.features={data}", *steps])


def values(workdir):
    lines = metrics_log.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "wall_time"} for line in lines if line["split"] != "timing"]


@pytest.mark.parametrize(
    ("fields", "draws", "step"),
    [
        ({}, 3, 3),
        ({"resident": "host"}, 3, 3),
        ({"resident": "device", "steps_per_dispatch": "2", "log_every": 4}, 1, 2),
    ],
    ids=["shards", "host", "device in bulk"],
)
def test_a_preempted_run_ends_as_if_it_had_not_been(config, fields, draws, step, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.data.resident = fields.pop("resident", "off")
    config.update(fields)
    straight = train.train_and_evaluate(config, tmp_path / "straight", progress=False)
    draw, drawn = Prefetch.next, []

    def preempt(self):
        drawn.append(True)
        if len(drawn) == draws:  # between two lines of the log and off the evaluations
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(self)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Prefetch, "next", preempt)
    with pytest.raises(Preempted, match=f"saved at step {step}; the same command resumes it"):
        train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [line["step"] for line in values(tmp_path / "run")] == ([2] if step > 2 else [])

    resumed = train.train_and_evaluate(config, tmp_path / "run", progress=False)
    assert values(tmp_path / "run") == values(tmp_path / "straight")
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["evaluated_step"] == straight["evaluated_step"]
    a, b = (jax.tree.leaves(checkpoints.load(tmp_path / name, "latest")[2]) for name in ("straight", "run"))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been():
    # `make chaos` does this 20 times to every task. It runs in a separate process because it forks, which a process
    # with devices must not do.
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills=3", "--tasks=audio"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["audio"])
    assert (row[1], row[4]) == ("3", "yes")


def test_two_runs_on_one_folder_are_refused(config, tmp_path):
    with run_folder.lock(tmp_path), pytest.raises(UserError, match=r"another run is using .*choose another --workdir"):
        train.train_and_evaluate(config, tmp_path, progress=False)


# A separate process: Orbax gives up at the first file that fails, and other writes report to its closed loop at any
# later time; so does TensorBoard's writer from its own thread, and again at exit.
TRAIN = """
import sys
from avemo import configuration
from avemo.training import train
from media.errors import UserError
try:
    train.train_and_evaluate(configuration.from_json(sys.argv[1]), sys.argv[2], progress=False)
except UserError as error:
    print("error:", error, flush=True)
"""


def test_a_full_disk_is_one_clear_error(config, tmp_path):
    path = tmp_path / "config.json"
    large = configuration.to_dict(config)
    large["model"]["fusion_args"]["features"] = 4000  # a state of half a megabyte
    path.write_text(json.dumps(large))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        command = [sys.executable, "-c", TRAIN, str(path), str(disk / "run")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert "free some space" in run.stdout, run.stderr[-2000:]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "16"}, False),  # the batch script itself
        ({"SLURM_JOB_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"AVEMO_DISTRIBUTED": "1"}, True),
    ],
)
def test_a_cluster_is_joined_where_there_is_one(environment, several):
    assert process.in_cluster(environment) == several
