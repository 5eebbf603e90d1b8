"""The loop behind docs/results.md: steps run once, a failing row stops no other, the document shows what exists."""

import json
import sys

import numpy as np
import pytest

from avemo.metrics import significance
from benchmarks.results import document, embedding, faces, folded, measures
from benchmarks.results.experiment import Experiment, make
from benchmarks.results.steps import ROOT, Place, Step, StepRunner
from media.errors import UserError


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "source", tmp_path / "work", sys.executable)


def write(name, path, text, **more):
    """A step that appends a line to a file."""
    return Step(name, ("-c", f"open({str(path)!r}, 'a').write({text + chr(10)!r})"), **more)


def test_a_step_is_run_once_until_its_command_changes(place, tmp_path):
    place.work.mkdir()
    out = tmp_path / "out"
    for text in ("a", "a", "b"):
        StepRunner(place).run(write("said/x", out, text))
    assert out.read_text() == "a\nb\n"
    StepRunner(place).run(write("said/y", out, "peer", peer=True))
    assert out.read_text().endswith("peer\n")


def test_a_step_that_fails_names_its_log_and_is_run_again(place):
    place.work.mkdir()
    failing = Step("said/z", ("-c", "import sys; sys.exit('error: no such corpus')"))
    for _ in range(2):
        with pytest.raises(UserError, match=r"step said/z ended with status 1: error: no such corpus .*said_z.log"):
            StepRunner(place).run(failing)
    assert not json.loads((place.work / "steps.json").read_text())["said/z"]["complete"]


def row(name, title, measure, steps=()):
    return Experiment(name, title, "on nothing", lambda place: list(steps), measure)


def measured(place):
    right = significance.accuracy(np.ones(40, int), (np.arange(40) % 4 > 0).astype(int)[None])
    left = significance.accuracy(np.ones(40, int), (np.arange(40) % 2).astype(int)[None])
    return {
        "metric": "accuracy",
        "unit": "picture",
        "scores": [measures.score("ours", right, ours=True, uar=0.7), measures.score("theirs", left)],
        "differences": [measures.difference("ours", "theirs", right, left)],
        "checks": [measures.check("reach 0.70", True), measures.check("aim 0.90", False)],
        "recall": {"happy": 0.75},
        "numbers": {"happy": 40},
        "ece": 0.1,
    }


def test_a_row_that_fails_leaves_the_others(place, tmp_path):
    def fails(place):
        raise UserError("its corpus is missing")

    rows = [row("bad", "Bad", fails), row("good", "Good", measured, [write("said/x", tmp_path / "out", "a")])]
    assert make(place, rows) == ["bad: its corpus is missing"]
    output = tmp_path / "docs/results.md"
    output.parent.mkdir()
    document.write(place, rows, output)
    text = output.read_text()
    assert "| Bad | not made yet |" in text
    assert "| Good | 0.750 [" in text
    assert "theirs: 0.500" in text
    assert "✓ reach 0.70; ✗ aim 0.90" in text
    assert "| happy (40) |" in text
    assert (tmp_path / "docs/images/results_good.png").read_bytes().startswith(b"\x89PNG")
    before = output.read_bytes()
    document.write(place, rows, output)
    assert output.read_bytes() == before


def test_commands_are_written_with_the_default_folders(place):
    steps = faces.data(place)
    value = place.portable(steps[0])
    assert value.startswith("python -m data_prep fer --source=../shared/data/ferplus --output=runs/results/data")


def test_the_commands_of_rows_are_known_to_the_programs_that_they_call(place):
    """Named configs exist, and steps of the face rows that share a name share their command."""
    seen = {}
    for one in (*faces.EXPERIMENTS.values(), *embedding.EXPERIMENTS.values(), *folded.EXPERIMENTS.values()):
        for step in one.steps(place):
            assert seen.setdefault(step.name, step.command()) == step.command()
            for argument in step.arguments:
                if argument.startswith("--config=configs/"):
                    assert (ROOT / argument.removeprefix("--config=").partition(":")[0]).is_file()
    assert {"runs/teacher", "runs/student_s2", "runs/student_alone_s0", "runs/teacher_faces"} <= set(seen)
