"""The command line as a user meets it: help, exit status, one clear line."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import launch
from avemo.cli.commands import COMMANDS
from avemo.ops import hardware
from helpers.processes import to_a_closed_pipe


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_on_each_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        launch.main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: launch.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--config=configs/none.py", "--workdir=x"], "no config file"),
        (["train", "--config=configs/paper/teacher.py", "--workdir=x", "--config.sed=1"], "did you mean 'seed'"),
        (["evaluate", "--workdir=nowhere"], "nowhere is not a run folder"),
        (["evaluate", "--workdir=x", "--host_devices=0"], "1 or more"),
        (["extract", "--workdir=nowhere", "--data=x", "--output=y"], "nowhere is not a run folder"),
        (["demo", "--workdir=x", "--corpus=real", "--source=nowhere"], "--source=nowhere is not a folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, says, capsys, tmp_path):
    arguments = [a.replace("--workdir=x", f"--workdir={tmp_path / 'x'}") for a in arguments]
    assert launch.main(arguments) == 2
    said = capsys.readouterr().err
    first, error = said.split("\n", 1) if "--host_devices=0" not in arguments else ("on no device", said)
    assert first.startswith("on ")  # what the command runs on
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_an_unknown_fusion_lists_the_known_ones(tmp_path, capsys):
    from helpers import toy

    folder = toy.clips(tmp_path, train=1, dev=1)  # any data set: the name is checked before it is read
    arguments = ["train", "--config=configs/demo/fusion.py:smoke", f"--workdir={tmp_path / 'run'}"]
    assert launch.main([*arguments, "--config.model.fusion=bottelneck", f"--config.data.features={folder}"]) == 2
    assert "did you mean 'bottleneck'" in capsys.readouterr().err


COMMAND = """
import sys, launch
from avemo.cli import commands
def run(args, rest): {body}
commands.COMMANDS["compare"] = commands.Command("", {{}}, run)
sys.argv = ["launch.py", "compare"]
sys.exit(launch.main())
"""


@pytest.mark.parametrize(
    "body",
    [
        "return 'one line'",
        "return 'x' * 1_000_000",
        "return {'failed': ['a'], 'table': ['x' * 100] * 1000}",
        "print('a line at a time', flush=True)",
        "print('x' * 1_000_000)",
    ],
)
def test_a_reader_that_leaves_ends_the_command_quietly(body):
    status, said = to_a_closed_pipe("-c", COMMAND.format(body=body))
    assert (status, re.sub("^on CPU, .*\n", "", said)) == (141, "")


def test_help_to_a_reader_that_has_left_ends_quietly():
    code = "import sys, launch; sys.argv = ['launch.py', '--help']; sys.exit(launch.main())"
    assert to_a_closed_pipe("-c", code) == (141, "")


def test_a_broken_pipe_that_is_not_standard_output_is_not_hidden():
    code = COMMAND.format(body="raise BrokenPipeError(32, 'the bucket has hung up')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert "BrokenPipeError: [Errno 32] the bucket has hung up" in done.stderr


def test_the_exit_status_is_that_of_the_command():
    for arguments, status in ((["--help"], 0), (["nothing"], 2), (["evaluate", "--workdir=nowhere"], 2)):
        code = f"import sys, launch; sys.argv = ['launch.py', *{arguments}]; sys.exit(launch.main())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == status


def test_no_command_imports_tensorflow():
    code = (
        "import sys, launch, avemo.cli.demo, avemo.evaluation.extract, avemo.evaluation.evaluate;"
        "import avemo.training.train, avemo.predict;"
        "from avemo.data import shards; import tensorflow_datasets as tfds; tfds.core.DatasetInfo;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_preparation_imports_no_jax():
    code = (
        "import sys, data_prep.__main__, data_prep.synthetic;"
        "sys.exit('jax' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", sorted(name for name, command in COMMANDS.items() if command.uses_jax))
def test_the_first_line_of_each_command_names_what_it_runs_on(command, capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, command, dataclasses.replace(COMMANDS[command], flags={}, run=lambda *_: "done"))
    assert launch.main([command]) == 0
    assert capsys.readouterr().err.startswith(f"on {hardware.summary()}\n")


def test_an_accelerator_that_jax_cannot_use_is_the_second_line(capsys, monkeypatch):
    monkeypatch.setattr(hardware, "unused", lambda: "this machine has a TPU")
    assert launch.main(["evaluate", "--workdir=nowhere"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "warning: this machine has a TPU"
    assert launch.main(["compare", "nowhere"]) == 2  # it would not use one
    assert "TPU" not in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
@pytest.mark.parametrize("command", ["export", "sweep"])
def test_a_signal_unwinds_the_command_and_what_is_said_is_true(kind, word, command, monkeypatch, capsys):
    unwound = []

    def run(args, overrides):
        try:
            os.kill(os.getpid(), kind)
            time.sleep(5)
        finally:
            unwound.append(command)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(COMMANDS, command, dataclasses.replace(COMMANDS[command], run=run, uses_jax=False))
    flag = "--output=x" if command == "export" else "--config=x"
    assert launch.main([command, "--workdir=x", flag]) == 128 + kind
    said = {
        "export": "nothing unfinished is left; the same command begins anew",
        "sweep": "trains the settings that are",
    }
    assert capsys.readouterr().err.startswith(f"{word}: ")
    assert said[command] in COMMANDS[command].stopped
    assert unwound == [command]
    assert signal.getsignal(signal.SIGTERM) == before
