"""Two processes of four devices: the ordinary command gives the run of one process of eight, and either resumes it."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from avemo import checkpoints, configuration, runtime, train, writer
from avemo.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = [
    *("--config.model.width=0.0625", "--config.model.fc_dim=8", "--config.model.embedding_dim=8"),
    *("--config.steps=4", "--config.log_every=1", "--config.eval_every=2", "--config.data.delay=0.0"),
    *("--config.optimizer.name=sgd", "--config.loss.per=batch"),
]


def launch(workdir, overrides):
    """Runs `launch.py train` as two processes on this host and waits for both."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "4"}
    shared |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, "launch.py", "train", "--config=configs/demo/audio.py:smoke", f"--workdir={workdir}"]
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
    try:
        for child in children:
            said, _ = child.communicate(timeout=300)
            assert child.returncode == 0, said[-3000:]
    finally:
        for child in children:
            child.kill()


def losses(workdir):
    """Every value of the log but the clock's, line by line."""
    lines = [line for line in writer.read(workdir / "metrics.jsonl") if line["split"] != "timing"]
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
    largest = max(np.abs(x).max() for x in a)  # the head's bias is a millionth of it
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_two_processes_train_as_one_and_resume_each_other(mode, tmp_path):
    clips = toy.clips(tmp_path / "data", train=8, dev=3, frames=20, segments=1)
    overrides = [f"--config.data.clips={clips}", *TINY, f"--config.parallel={mode}"]
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


def test_processes_that_jax_cannot_count_are_counted_by_variables():
    assert runtime._place({"JAX_COORDINATOR_ADDRESS": "a:1"}) == {}
    both = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}
    assert runtime._place({**both, "JAX_PROCESS_ID": "1"}) == {"num_processes": 2, "process_id": 1}
    with pytest.raises(UserError, match="JAX_PROCESS_ID"):
        runtime._place(both)
