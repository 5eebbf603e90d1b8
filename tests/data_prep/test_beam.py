"""Apache Beam gives the same bytes as local processes; without Beam there is one clear error."""

import json
import logging
import os
import sys

import pytest

from data_prep import beam, corpora, task_runner
from data_prep.preparation import prepare
from media.errors import UserError


def contents(folder):
    """Reads every file of a data set."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_without_beam_the_error_says_what_to_install(tmp_path, draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # makes the import fail
    source = draw.affectnet(tmp_path / "a", train=2, dev=1)
    with pytest.raises(UserError, match=r"--runner=beam needs Apache Beam.*requirements-beam\.txt"):
        prepare("affectnet", source, tmp_path / "out", runner="beam")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runner": "bean"}, "did you mean 'beam'"),
        ({"beam_pipeline_options": "runner=DirectRunner"}, "needs --runner=beam"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        prepare("affectnet", tmp_path, tmp_path / "out", **options)


def test_a_task_run_twice_leaves_one_whole_result(tmp_path, draw):
    corpus = corpora.affectnet.AffectNet(draw.affectnet(tmp_path / "a", train=4, dev=1), corpora.affectnet.Options())
    path = tmp_path / "spool" / "000000.records"
    path.parent.mkdir()
    task = beam.Task(corpus)
    task((list(corpus.items()), str(path)))
    first = path.read_bytes(), path.with_name("000000.records.json").read_text()
    task((list(corpus.items()), str(path)))
    assert (path.read_bytes(), path.with_name("000000.records.json").read_text()) == first
    assert sorted(os.listdir(path.parent)) == ["000000.records", "000000.records.json"]


@pytest.fixture
def apache_beam():
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    return pytest.importorskip("apache_beam", reason="Apache Beam is an optional extra: requirements-beam.txt")


pytestmark = pytest.mark.filterwarnings("default")  # Beam's deprecations are not ours to fix


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_the_bytes_are_those_of_a_local_run(tmp_path, draw, monkeypatch, apache_beam, form):
    source = draw.affectnet(tmp_path / "a")
    (source / "train_set" / "annotations" / "6_val.npy").unlink()  # one item that is skipped
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 5)  # several tasks
    local, _ = prepare("affectnet", source, tmp_path / "local", workers=2, shards=3, quiet=True, format=form)
    on_beam, _ = prepare("affectnet", source, tmp_path / "beam", runner="beam", shards=3, quiet=True, format=form)
    assert contents(on_beam) == contents(local)
    assert json.loads((on_beam / "card.json").read_text())["items_skipped"] == 1
    assert sorted(os.listdir(tmp_path / "beam" / "affectnet")) == ["1.0.0"]


def test_clips_on_two_beam_workers(tmp_path, draw, red_square, apache_beam):
    source = draw.recola(tmp_path / "a", (16, 21, 19), seconds=0.6)
    options = {"detector": red_square, "crop_size": 16, "quiet": True}
    flags = "runner=DirectRunner,direct_num_workers=2,direct_running_mode=multi_threading"
    local, _ = prepare("recola", source, tmp_path / "local", workers=1, **options)
    on_beam, _ = prepare("recola", source, tmp_path / "beam", runner="beam", beam_pipeline_options=flags, **options)
    assert contents(on_beam) == contents(local)


def test_finished_tasks_of_a_run_that_stopped_are_not_done_again(tmp_path, interrupted, monkeypatch, apache_beam):
    source, whole, _ = interrupted
    real = task_runner.run_task
    tasks = []
    monkeypatch.setattr(beam.Task, "__call__", lambda self, task: tasks.append(task[1]) or _run(self, task, real))
    again, _ = prepare("affectnet", source, tmp_path / "cut", runner="beam", quiet=True)
    assert len(tasks) == 3  # of six
    assert contents(again) == contents(whole)


def _run(task, work_of_task, run_task):
    items, path = work_of_task
    run_task(task.corpus, items, path)
    return path


@pytest.mark.parametrize(("text", "flag", "value"), [
    ("", "runner", "DirectRunner"),
    ("direct_num_workers=3", "direct_num_workers", 3),
    ("--runner=DirectRunner --direct_num_workers=4", "direct_num_workers", 4),
    ("runner=DirectRunner,project=p,region=r", "project", "p"),
])  # fmt: skip
def test_flags_are_passed_through(apache_beam, text, flag, value):
    assert beam.pipeline_options(text).get_all_options()[flag] == value


def test_a_runner_that_does_not_exist_is_refused(apache_beam):
    with pytest.raises(UserError, match="Beam does not accept this"):
        beam.pipeline_options("runner=NoSuchRunner")
