"""`make reliability` in short: every format with all its damaged files, and the situations, commands and signals."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks.reliability import fuzz
from benchmarks.reliability.samples import samples

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(samples()))
def test_every_sample_is_whole_and_damage_repeats(name, tmp_path):
    sample = samples()[name]
    path = sample.write(tmp_path)
    assert sample.read(path) is not None
    data = path.read_bytes()
    first, again = (list(fuzz.mutants(data, 5, seed=3)) for _ in range(2))
    assert first == again
    assert all(one != data for one in first[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(samples()))
def test_damaged_files_of_every_format_are_refused_in_time_and_memory(name):
    command = [sys.executable, "-m", "benchmarks.reliability.fuzz", name, "--count=300"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] == 300


@pytest.mark.slow
def test_every_promise_is_kept(tmp_path):
    output = tmp_path / "table.md"
    command = [sys.executable, "-m", "benchmarks.reliability", "--mutants=20", "--kills=3", f"--output={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "**broken**" not in output.read_text()
