"""The packed form of a split: whole or not at all, never that of other shards, and in little memory."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from avemo.data import packed
from media.errors import UserError


def chunks(count=10, size=3):
    for begin in range(0, count, size):
        numbers = np.arange(begin, min(begin + size, count))
        yield {"image": np.repeat(numbers, 12).astype(np.uint8).reshape(-1, 2, 2, 3), "label": numbers.astype(np.int32)}


def made_by(calls):
    def make():
        calls.append(1)
        return chunks()

    return make


def test_it_is_made_once_and_opened_afterwards(tmp_path):
    calls = []
    first = packed.open_or_pack(tmp_path, {"split": "train"}, made_by(calls))
    again = packed.open_or_pack(tmp_path, {"split": "train"}, made_by(calls))
    assert len(calls) == 1
    assert first.folder == again.folder
    assert first.folder.parent == tmp_path / "packed"
    np.testing.assert_array_equal(again.arrays["label"], np.arange(10))
    np.testing.assert_array_equal(again.arrays["image"][:, 1, 1, 2], np.arange(10))
    assert again.arrays["image"].dtype == np.uint8
    assert again.nbytes == 10 * 12 + 10 * 4
    with pytest.raises(ValueError, match="read-only"):
        again.arrays["label"][0] = 1


def test_another_recipe_is_another_cache(tmp_path):
    calls = []
    for recipe in ({"split": "train", "size": 48}, {"split": "dev", "size": 48}, {"split": "train", "size": 96}):
        packed.open_or_pack(tmp_path, recipe, made_by(calls))
    assert len(calls) == 3
    assert len(list((tmp_path / "packed").iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "no index", "no array", "index"])
def test_a_damaged_one_is_made_anew_and_said(tmp_path, damage, caplog):
    calls = []
    folder = packed.open_or_pack(tmp_path, {}, made_by(calls)).folder
    if damage == "cut":
        os.truncate(folder / "image.bin", 50)
    elif damage == "index":
        (folder / "packed.json").write_text("{")
    else:
        (folder / ("packed.json" if damage == "no index" else "label.bin")).unlink()
    with caplog.at_level(logging.WARNING):
        found = packed.open_or_pack(tmp_path, {}, made_by(calls))
    assert len(calls) == 2
    np.testing.assert_array_equal(found.arrays["label"], np.arange(10))
    assert len(caplog.records) == (1 if damage in ("cut", "index") else 0)
    assert not list((tmp_path / "packed").glob(".*"))


def test_a_failure_leaves_nothing(tmp_path):
    def broken():
        yield from chunks(6)
        raise UserError("record 7 cannot be decoded")

    with pytest.raises(UserError, match="record 7"):
        packed.open_or_pack(tmp_path, {}, broken)
    assert not list((tmp_path / "packed").iterdir())


def test_beside_shards_that_cannot_be_written_to_it_goes_into_the_users_cache(tmp_path, monkeypatch):
    dataset = tmp_path / "data"
    dataset.write_text("a file in the way of the folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []
    found = packed.open_or_pack(dataset, {}, made_by(calls))
    assert found.folder.parent == tmp_path / "cache" / "avemo" / "packed"
    packed.open_or_pack(dataset, {}, made_by(calls))
    assert len(calls) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(dataset))
    with pytest.raises(UserError, match=r"cannot be written to .* set XDG_CACHE_HOME"):
        packed.open_or_pack(dataset, {"other": 1}, made_by(calls))


def test_what_a_killed_process_or_older_shards_left_is_removed(tmp_path):
    calls = []
    one, two = ({"fingerprints": ["a"], "size": size} for size in (48, 96))
    first = packed.open_or_pack(tmp_path, one, made_by(calls)).folder
    (tmp_path / "packed" / ".half-written").mkdir()
    second = packed.open_or_pack(tmp_path, two, made_by(calls)).folder
    assert sorted((tmp_path / "packed").iterdir()) == sorted([first, second])
    third = packed.open_or_pack(tmp_path, {**one, "fingerprints": ["b"]}, made_by(calls)).folder
    assert list((tmp_path / "packed").iterdir()) == [third]


def test_a_disk_without_room_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []
    with pytest.raises(packed.CannotWrite, match="No space left on device"):
        packed.open_or_pack(tmp_path, {}, made_by(calls), nbytes=1 << 60)
    assert not calls


def test_packing_takes_little_memory_however_large_the_split(tmp_path):
    code = (
        "import pathlib, resource, sys, numpy as np; from avemo.data import packed\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "chunk = lambda: {'image': np.ones((256, 64, 64, 3), np.uint8)}\n"
        "packed.open_or_pack(pathlib.Path(sys.argv[1]), {}, lambda: (chunk() for _ in range(80)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(out.stdout) < 40_000  # kB; the arrays are 252 MB
