"""Two processes of four devices give the run of one process of eight, and each can resume the other's."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from avemo import configuration
from avemo.cli import process
from avemo.runs import checkpoints, metrics_log
from avemo.training import train
from helpers import toy
from media.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[3]
TINY = [
    *("--config.model.width=0.0625", "--config.model.fc_dim=8", "--config.model.embedding_dim=8"),
    *("--config.steps=4", "--config.log_every=1", "--config.eval_every=2", "--config.data.delay=0.0"),
    *("--config.optimizer.name=sgd", "--config.loss.per=batch"),
]


# `launch.py`, with the processes named in SIGNALLED sending themselves SIGTERM before the third step. Steps are slowed
# down to the pace of real data, because the other process hears of it within a second or two.
SIGNALLED = """
import os, signal, sys, time
sys.path.insert(0, os.getcwd())
import launch
from avemo.training.prefetch import Prefetch
draw, drawn = Prefetch.next, []
def slow(self):
    drawn.append(True)
    if len(drawn) == 3 and os.environ["JAX_PROCESS_ID"] in os.environ["SIGNALLED"]:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    return draw(self)
Prefetch.next = slow
sys.exit(launch.main(sys.argv[1:]))
"""


def launch(workdir, overrides, signalled=""):
    """Runs `launch.py train` as two processes on this host, some of which get SIGTERM; returns their output."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "4"}
    shared |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags), "SIGNALLED": signalled}
    program = ["-c", SIGNALLED] if signalled else ["launch.py"]
    command = [sys.executable, *program, "train", "--config=configs/demo/audio.py:smoke", f"--workdir={workdir}"]
    children = [
        subprocess.Popen(
            [*command, *overrides],
            cwd=ROOT,
            env={**os.environ, **shared, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = []
    try:
        for child in children:
            said.append(child.communicate(timeout=300)[0])
            assert child.returncode == 0, said[-1][-3000:]
    finally:
        for child in children:
            child.kill()
    return said


def losses(workdir):
    """Every value of the log except times, line by line."""
    lines = [line for line in metrics_log.read(workdir / "metrics.jsonl") if line["split"] != "timing"]
    return [
        ((line["step"], line["split"]), {k: v for k, v in line.items() if k not in ("step", "split", "wall_time")})
        for line in lines
    ]


def assert_same_run(one, two):
    a, b = losses(one), losses(two)
    assert [key for key, _ in a] == [key for key, _ in b]
    for (key, x), (_, y) in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        np.testing.assert_allclose(list(y.values()), list(x.values()), rtol=1e-5, atol=1e-7, err_msg=str(key))
    a, b = (jax.tree.leaves(checkpoints.load(workdir, "latest")[2]) for workdir in (one, two))
    largest = max(np.abs(x).max() for x in a)  # the head's bias is a millionth of that
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "resident", "bulk"),
    [("pmap", "device", 1), ("shard_map", "device", 2), ("pmap", "host", 2), ("shard_map", "off", 1)],
)
def test_two_processes_train_as_one_and_resume_each_other(mode, resident, bulk, tmp_path):
    clips = toy.clips(tmp_path / "data", train=8, dev=3, frames=20, segments=1)
    overrides = [f"--config.data.clips={clips}", *TINY, f"--config.parallel={mode}", f"--config.log_every={bulk}"]
    overrides += [f"--config.data.resident={resident}", f"--config.steps_per_dispatch={bulk}"]
    overrides.append("--config.data.augment.spec_time=20")
    config = configuration.load("configs/demo/audio.py:smoke", overrides)
    train.train_and_evaluate(config, tmp_path / "one", progress=False)
    launch(tmp_path / "two", overrides)
    assert_same_run(tmp_path / "one", tmp_path / "two")

    def stopped(source, target):
        shutil.copytree(tmp_path / source, tmp_path / target)
        shutil.rmtree(tmp_path / target / "checkpoints/4")
        (tmp_path / target / "result.json").unlink()
        return tmp_path / target

    train.train_and_evaluate(config, stopped("two", "two_then_one"), progress=False)
    assert_same_run(tmp_path / "one", tmp_path / "two_then_one")
    launch(stopped("one", "one_then_two"), overrides)
    assert_same_run(tmp_path / "one", tmp_path / "one_then_two")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The overrides and the folder of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    clips = toy.clips(folder / "data", train=8, dev=3, frames=20, segments=1)
    overrides = [f"--config.data.clips={clips}", *TINY, "--config.steps=40", "--config.log_every=4"]
    overrides += ["--config.eval_every=40", "--config.data.resident=device", "--config.steps_per_dispatch=2"]
    launch(folder / "run", overrides)
    return overrides, folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("signalled", ["01", "1"], ids=["both", "one"])
def test_two_processes_that_get_sigterm_save_one_step_and_resume_as_if_they_had_not(signalled, uninterrupted, tmp_path):
    overrides, straight = uninterrupted
    said = launch(tmp_path / "two", overrides, signalled)
    stopped = {re.search(r"preempted: .* saved at step (\d+)", text)[1] for text in said}
    assert len(stopped) == 1
    assert 2 < int(*stopped) < 40
    assert [path.name for path in (tmp_path / "two/checkpoints").iterdir()] == [*stopped]
    launch(tmp_path / "two", overrides)
    assert_same_run(straight, tmp_path / "two")


def test_processes_that_jax_cannot_count_are_counted_by_environment_variables():
    assert process.place({"JAX_COORDINATOR_ADDRESS": "a:1"}) == {}
    both = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}
    assert process.place({**both, "JAX_PROCESS_ID": "1"}) == {"num_processes": 2, "process_id": 1}
    with pytest.raises(UserError, match="JAX_PROCESS_ID"):
        process.place(both)
