"""Wherever the data lies, the batches are the same."""

import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avemo import configuration, tasks
from avemo.data import packed, pipeline, residency
from helpers import sequences, toy
from media.errors import UserError

SMALL = {
    "teacher": ("--config.model.image_size=32", "--config.data.batch.faces=6", "--config.data.batch.triplets=4"),
    "audio": (*("--config.data.windows=3", "--config.data.window_hop=0.3"), "--config.data.delay=0.2"),
    "fusion": ("--config.data.sequence_length=30", "--config.data.sequence_hop=7", "--config.data.delay=0.4"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    more = {"name": "more", "train": 5, "dev": 2}
    return {
        "faces": f"{toy.faces(folder, train=20)}:2,{toy.faces(folder, **more)}",
        "triplets": toy.triplets(folder, train=8),
        "clips": toy.clips(folder, train=5, frames=40, segments=2),
        # One recording is shorter than a window.
        "features": sequences.write_features(folder, count=3, frames=(40, 25, 61)),
    }


def opened(name, folders, *overrides):
    used = {"teacher": ("faces", "triplets"), "audio": ("clips",), "fusion": ("features",)}[name]
    paths = [f"--config.data.{kind}={folders[kind]}" for kind in used]
    config = configuration.load(f"configs/demo/{name}.py:smoke", [*paths, *SMALL[name], *overrides])
    return tasks.open_data(tasks.make(config))


def first(batches, count=12):
    iterator = iter(batches)
    return [next(iterator) for _ in range(count)]


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True):
        assert (np.shape(x), np.asarray(x).dtype) == (np.shape(y), np.asarray(y).dtype), path
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", SMALL)
def test_the_batches_are_the_same_from_the_shards_the_host_and_the_device(name, folders):
    modes = {mode: opened(name, folders, f"--config.data.resident={mode}").open_feed() for mode in ("off", "host")}
    data = opened(name, folders, "--config.data.resident=device")
    feed = data.open_feed()
    expected = first(data.batches())
    assert_same(first(modes["off"].batches), expected)
    assert_same(first(modes["host"].batches), expected)
    assert not modes["host"].tables
    tables = jax.tree.map(jnp.asarray, feed.tables)
    gather = jax.jit(data.stage.gather, static_argnums=0)
    for drawn, rows in zip(first(feed.batches), expected, strict=True):
        assert all(set(draws) <= {"index", "start"} for draws in drawn.values())
        assert_same({stream: dict(gather(stream, tables[stream], draws)) for stream, draws in drawn.items()}, rows)


def test_an_interrupted_run_goes_on_in_any_mode_where_it_was(folders):
    iterator = iter(opened("teacher", folders).batches())
    for _ in range(3):
        next(iterator)
    resumed = iter(opened("teacher", folders, "--config.data.resident=host").open_feed().batches)
    resumed.set_state(iterator.get_state())
    assert_same(next(resumed), next(iterator))


def test_processes_decode_the_same_batches_and_a_run_may_change_their_number(folders):
    expected = first(opened("teacher", folders).batches(), 5)
    off = ("--config.data.resident=off", "--config.data.prefetch=1")
    data = opened("teacher", folders, *off, "--config.data.workers=2")
    batches = data.open_feed().batches
    assert_same(first(batches, 3), expected[:3])
    state = batches.get_state()
    batches.close()
    config = opened("teacher", folders, *off, "--config.data.workers=1").config
    faces, triplets = pipeline.open_streams(data.sources(), config)
    beside = pipeline.Resident({}, lambda tables, draws: {"index": draws["index"]})  # gathered in this process
    batches = pipeline.join([faces, triplets], config, {"triplets": beside})
    batches.set_state(state)
    for got, want in zip(first(batches, 2), expected[3:], strict=True):
        assert_same(got["faces"], want["faces"])
        types = [triplets.records[int(place)]["type"] for place in got["triplets"]["index"]]
        assert types == want["triplets"]["type"].tolist()
    assert batches.get_state() == {"next_index": 5}
    batches.close()


def test_bad_numbers_of_processes_are_refused(folders):
    with pytest.raises(UserError, match=r"data\.workers is many: it takes auto"):
        opened("teacher", folders, "--config.data.resident=off", "--config.data.workers=many").open_feed()


def test_balanced_faces_are_packed_once_and_drawn_by_class(folders):
    faces = {**folders, "faces": folders["faces"].split(",")[0]}
    data = opened("teacher", faces, "--config.data.balanced=True", "--config.data.resident=host")
    assert_same(first(data.open_feed().batches), first(data.batches()))


def test_it_is_said_where_the_data_lies_and_why(folders, caplog, monkeypatch):
    def lines(**fields):
        data = opened("teacher", folders, *(f"--config.{name}={value}" for name, value in fields.items()))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            feed = data.open_feed()
        said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("input: ")]
        assert len(said) == 2
        return set(feed.modes.values()), "\n".join(said)

    assert lines(**{"data.resident": "off"}) == (
        {"off"},
        "input: faces from the shards (data.resident=off).\ninput: triplets from the shards (data.resident=off).",
    )
    modes, text = lines(steps=1, seed=1, **{"model.image_size": 20})
    assert modes == {"off"}
    assert "the run draws 6 examples, packing would read 25" in text
    modes, text = lines(steps=100)
    assert modes == {"host"}
    assert "there is no accelerator" in text
    monkeypatch.setattr(residency, "device_memory", lambda taken=0: 300_000 - 2 * taken)
    modes, text = lines(steps=100)  # the faces take the device's share, and leave none for the triplets
    assert modes == {"device", "host"}
    monkeypatch.setattr(residency, "host_memory", lambda: 10)
    monkeypatch.setattr(residency, "device_memory", lambda taken=0: None)
    assert lines(steps=100)[0] == {"off"}


def test_without_a_place_for_the_packed_form_auto_reads_the_shards_and_the_others_are_refused(folders, monkeypatch):
    def full(*_):
        raise packed.CannotWrite("no room.")

    monkeypatch.setattr(packed, "open_or_pack", full)
    data = opened("audio", folders, "--config.steps=100")
    monkeypatch.setattr(packed, "find", lambda *_: None)
    assert data.open_feed().modes == {"clips": "off"}
    with pytest.raises(UserError, match="no room"):
        opened("audio", folders, "--config.data.resident=host").open_feed()


def test_bad_modes_are_refused(folders):
    with pytest.raises(UserError, match="did you mean 'device'"):
        opened("audio", folders, "--config.data.resident=devise").open_feed()


PACK_MANY = """
import pathlib, resource, sys
import numpy as np
from avemo import configuration
from avemo.data import examples, feed, layouts, packed, shards
from media.images import encode_jpeg
jpeg = encode_jpeg(np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8))
class Faces:
    def __len__(self):
        return 300_000
    def __getitem__(self, index):
        votes = np.zeros(8, np.float32)
        return {"image": shards.Images([jpeg], ""), "label": index % 8, "votes": votes, "valence": 0.0, "arousal": 0.0}
layout = layouts.pictures(examples.face_example, Faces(), "image", configuration.load("configs/paper/teacher.py"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = packed.open_or_pack(pathlib.Path(sys.argv[1]), {}, lambda: feed.pack(Faces(), layout))
assert made.arrays["image"].shape == (300_000, 48, 48, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_packing_300_000_faces_takes_little_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", PACK_MANY, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 200_000  # kB; the arrays are 2 GB, and 1 GB is what packing may take
