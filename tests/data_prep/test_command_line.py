"""The command line gives a whole data set or none, the same for any number of workers; every mistake is one line."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import builder, command_line, corpora, preparation, task_runner
from data_prep.preparation import prepare
from helpers.processes import to_a_closed_pipe
from media import tfrecord
from media.errors import UserError
from media.records import Serializer


def shards(folder):
    """Hashes every file that must be equal in every run."""
    names = sorted(p for p in folder.iterdir() if "record-" in p.name or p.name == "features.json")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def run(capsys, *arguments):
    status = command_line.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_no_tensorflow_and_no_jax_is_imported():
    code = (
        "import sys, data_prep.command_line, data_prep.builder, data_prep.corpora; "
        "assert not {'tensorflow', 'jax', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_names_every_corpus_and_help_its_options(capsys):
    status, out, _ = run(capsys, "--list")
    assert status == 0
    assert all(name in out for name in corpora.CORPORA)
    with pytest.raises(SystemExit) as stop:
        command_line.main(["recola", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--gold_standard" in shown
    assert "RECOLA-Video-recordings" in shown


@pytest.mark.parametrize("arguments", [["data_prep", "--list"], ["data_prep", "recola", "--help"]])
def test_a_reader_that_leaves_ends_the_command_quietly(arguments):
    assert to_a_closed_pipe("-m", *arguments) == (141, "")


def test_a_finished_preparation_says_so_and_is_not_repeated(tmp_path, draw, capsys):
    source = draw.affectnet(tmp_path / "a")
    arguments = ("affectnet", f"--source={source}", f"--output={tmp_path / 'out'}", "--workers=1", "--quiet")
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    assert "train: 22 records" in out
    before = shards(tmp_path / "out" / "affectnet" / "1.0.0")
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "is complete already" in out
    assert shards(tmp_path / "out" / "affectnet" / "1.0.0") == before
    assert sorted(os.listdir(tmp_path / "out" / "affectnet")) == ["1.0.0"]
    status, _, err = run(capsys, *arguments, "--image_size=12")
    assert status == 2
    assert "image_size was 0, now 12" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recolla"], "unknown corpus 'recolla'; did you mean 'recola'?"),
        (["recola"], "--source, --output"),
        (["recola", "--source=/nowhere", "--output=OUT"], "--source=/nowhere is not a folder"),
        (["recola", "--source=HERE", "--output=OUT"], "is not laid out as recola"),
        (["affectnet", "--source=HERE", "--output=OUT"], "is not laid out as affectnet"),
        (["unlabelled", "--source=HERE", "--output=OUT"], "is not laid out as unlabelled"),
        (["recola", "--source=HERE", "--output=OUT", "--format=parquet"], "unknown format 'parquet'"),
        (["recola", "--source=HERE", "--output=OUT", "--shards=0"], "--shards must be at least 1"),
        (["recola", "--source=HERE", "--output=OUT", "--detector=har"], "did you mean 'haar'"),
        (["recola", "--source=HERE", "--output=OUT", "--crop=64"], "unrecognized arguments: --crop=64"),
        (["recola", "--source=HERE", "--output=OUT", "--gold_standard=median"], "unknown gold standard"),
        (["recola", "--source=HERE", "--output=OUT", "--name=a/b"], "--name=a/b"),
        (["--source=HERE"], "the first argument is the corpus"),
    ],
)
def test_each_mistake_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, said):
    out = tmp_path / "out"
    here = tmp_path / "here"
    here.mkdir()
    status, _, err = run(capsys, *(a.replace("OUT", str(out)).replace("HERE", str(here)) for a in arguments))
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not out.exists()


def test_the_number_of_workers_changes_nothing(tmp_path, draw, monkeypatch):
    source = draw.affectnet(tmp_path / "a")
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 5)  # more tasks than workers
    one, _ = prepare("affectnet", source, tmp_path / "one", workers=1, shards=3, quiet=True)
    two, _ = prepare("affectnet", source, tmp_path / "two", workers=2, shards=3, quiet=True)
    assert shards(one) == shards(two)
    assert len([name for name in shards(one) if "train" in name]) == 3
    cards = [json.loads((folder / "card.json").read_text()) for folder in (one, two)]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_shards_hold_every_record_once_whatever_their_number(tmp_path, draw, count):
    source = draw.affectnet(tmp_path / "a", train=11, dev=2)
    target, _ = prepare("affectnet", source, tmp_path / "out", workers=1, shards=count, quiet=True)
    records = list(tfds.builder_from_directory(str(target)).as_data_source(split="train"))
    assert len(records) == len({r["name"] for r in records}) == 10


def test_tfrecord_holds_the_same_bytes_as_array_record(tmp_path, draw):
    source = draw.affectnet(tmp_path / "a")
    array, _ = prepare("affectnet", source, tmp_path / "array", workers=1, quiet=True)
    plain, _ = prepare("affectnet", source, tmp_path / "plain", workers=1, quiet=True, format="tfrecord")
    stored = tfds.builder_from_directory(str(array))
    (path,) = plain.glob("*-train.tfrecord-*")
    serializer = Serializer(stored.info.features)
    records = [serializer.decode(data) for data in tfrecord.read(path)]
    expected = list(stored.as_data_source(split="train"))
    assert [r["name"] for r in records] == [r["name"] for r in expected]
    for a, b in zip(records, expected, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    assert tfds.builder_from_directory(str(plain)).info.splits["train"].num_examples == len(expected)


def test_one_corrupt_video_among_good_ones_is_skipped_and_listed(tmp_path, draw, red_square, capsys):
    source = draw.recola(tmp_path / "a", (16, 21, 19), seconds=0.6)
    (source / "RECOLA-Video-recordings" / "P21.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42 and then nothing")
    arguments = ["recola", f"--source={source}", f"--output={tmp_path / 'out'}", "--workers=1", "--quiet"]
    status, out, err = run(capsys, *arguments, "--detector=red", "--crop_size=16")
    assert (status, err) == (0, "")
    assert "skipped: 1 of 3 items" in out
    lines = (tmp_path / "out" / "recola" / "1.0.0" / "skipped.jsonl").read_text().splitlines()
    (skipped,) = map(json.loads, lines)
    assert skipped["item"] == "P21"
    assert "video cannot be opened" in skipped["reason"]


def test_more_than_one_in_twenty_corrupt_stops_and_leaves_nothing(tmp_path, draw, capsys):
    source = draw.affectnet(tmp_path / "a")
    for i in (5, 6, 7):
        (source / "train_set" / "images" / f"{i}.jpg").write_bytes(b"\xff\xd8 no picture")
    status, _, err = run(capsys, "affectnet", f"--source={source}", f"--output={tmp_path / 'out'}", "--workers=1")
    assert status == 2
    assert "3 of 36 items of affectnet failed, more than 5%" in err
    assert not (tmp_path / "out").exists()


def test_a_truncated_picture_and_a_missing_label_are_separate_failures(tmp_path, draw):
    source = draw.affectnet(tmp_path / "a", train=60, dev=1)
    path = source / "train_set" / "images" / "5.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    (source / "train_set" / "annotations" / "6_val.npy").unlink()
    (source / "train_set" / "annotations" / "7_exp.npy").write_bytes(b"")
    target, _ = prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    skipped = [json.loads(line) for line in (target / "skipped.jsonl").read_text().splitlines()]
    assert [one["item"] for one in skipped] == [f"train_set/{i}.jpg" for i in (5, 6, 7)]


def test_a_full_disk_is_one_line_and_leaves_nothing_but_finished_work(tmp_path, draw, capsys, monkeypatch):
    source = draw.affectnet(tmp_path / "a")

    def full(path, records):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = builder.FORMATS["array_record"]
    monkeypatch.setitem(builder.FORMATS, "array_record", full)
    status, _, err = run(
        capsys, "affectnet", f"--source={source}", f"--output={tmp_path / 'out'}", "--workers=1", "--quiet"
    )
    assert status == 2
    assert "the disk of" in err
    assert "finished work is kept in" in err
    (spool,) = (tmp_path / "out" / "affectnet").iterdir()
    assert sorted(path.suffix for path in spool.iterdir() if path.is_file()) == [".json", ".records"]
    monkeypatch.setitem(builder.FORMATS, "array_record", real)
    monkeypatch.setattr(task_runner, "run_task", None)  # nothing is left to do but the shards
    target, _ = prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert [path.name for path in target.parent.iterdir()] == ["1.0.0"]


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path, interrupted, monkeypatch):
    source, whole, done = interrupted
    assert not (tmp_path / "cut" / "affectnet" / "1.0.0").exists()
    real, later = task_runner.run_task, []

    def rest(corpus, items, path):
        later.append(path)
        real(corpus, items, path)

    monkeypatch.setattr(task_runner, "run_task", rest)
    again, _ = prepare("affectnet", source, tmp_path / "cut", workers=1, quiet=True)
    assert len(later) == 3
    assert not set(later) & set(done)
    assert shards(again) == shards(whole)
    assert sorted(os.listdir(tmp_path / "cut" / "affectnet")) == ["1.0.0"]


@pytest.mark.slow
def test_a_run_after_a_kill_at_any_moment_gives_the_same_bytes(tmp_path, draw):
    source = draw.recola(tmp_path / "a", (16, 21, 23, 19, 26), seconds=4)
    arguments = [sys.executable, "-m", "data_prep", "recola", f"--source={source}", "--workers=2", "--quiet"]
    subprocess.run([*arguments, f"--output={tmp_path / 'whole'}"], check=True)
    for seconds in (2.0, 4.0, 6.0):
        process = subprocess.Popen([*arguments, f"--output={tmp_path / 'cut'}"], start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*arguments, f"--output={tmp_path / 'cut'}"], check=True)
    version = "recola/1.0.0"
    assert shards(tmp_path / "cut" / version) == shards(tmp_path / "whole" / version)


@pytest.mark.parametrize("relative", [False, True])
def test_changed_input_is_not_taken_from_an_interrupted_run(tmp_path, draw, stopped, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    source = draw.affectnet(tmp_path / "a", train=6, dev=2)
    source = source.relative_to(tmp_path) if relative else source
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 2)
    stopped(1, "affectnet", source, tmp_path / "out", workers=1, quiet=True)
    picture = source / "train_set" / "images" / "0.jpg"
    picture.write_bytes((source / "train_set" / "images" / "1.jpg").read_bytes())
    target, _ = prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    records = {r["name"]: r["image"] for r in tfds.builder_from_directory(str(target)).as_data_source(split="train")}
    np.testing.assert_array_equal(records[b"train_set/0.jpg"], records[b"train_set/1.jpg"])


def test_max_items_spreads_over_the_list():
    items = [corpora.affectnet.Item(str(i), "train") for i in range(10)] + [corpora.affectnet.Item("d", "dev")]
    assert [item.key for item in preparation.select(items, 4)] == ["0", "2", "5", "7", "d"]


def test_a_folder_that_is_not_a_data_set_is_not_overwritten(tmp_path, draw):
    source = draw.affectnet(tmp_path / "a", train=2, dev=1)
    precious = tmp_path / "out" / "affectnet" / "1.0.0"
    precious.mkdir(parents=True)
    (precious / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a data set of this program"):
        prepare("affectnet", source, tmp_path / "out", workers=1)
    assert (precious / "thesis.tex").exists()
