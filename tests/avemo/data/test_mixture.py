"""A mixture of data sets: shares, order over processes, resuming, evaluation, bad input."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avemo import configuration, tasks
from avemo.data import examples, mixture, pipeline, shards
from helpers import toy
from media.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    return {name: toy.faces(folder, train=n, dev=d, name=name) for name, n, d in (("a", 24, 5), ("b", 7, 6))}


@pytest.fixture(scope="module")
def config():
    return configuration.load("configs/demo/teacher.py:smoke")


def name_example(record, rng, config):
    return {"name": np.array([record["name"]]), "drawn": np.float64(rng.random() if rng else 0)}


class Records:
    """Records in memory instead of shards; opening files is tested elsewhere."""

    class_names = ("x",)

    def __init__(self, folder, split):
        name, count = folder.split("-")
        self._rows = [{"name": f"{name}{i}"} for i in range(int(count))]

    def __len__(self):
        return len(self._rows)

    def __repr__(self):
        return "Records"

    def __getitem__(self, index):
        return self._rows[int(index) % len(self)]


def drawn(source, config, batches, processes=1):
    """The rows of the first global batches, collected from every process's share."""
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: processes)
        for process in range(processes):
            patch.setattr(jax, "process_index", lambda process=process: process)
            iterator = iter(pipeline.train_batches({"faces": source}, config))
            parts.append([next(iterator)["faces"] for _ in range(batches)])
    return [
        {field: np.concatenate([part[k][field] for part in parts]) for field in ("name", "drawn")}
        for k in range(batches)
    ]


@settings(max_examples=12, deadline=None)
@given(
    processes=st.integers(1, 4),
    rows=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    weights=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_processes_together_draw_what_one_would(processes, rows, sizes, weights):
    config = configuration.load("configs/demo/teacher.py:smoke")
    names = [f"{letter}-{size}" for letter, size in zip("abc", sizes, strict=False)]
    text = ",".join(f"{name}:{weight}" for name, weight in zip(names, weights, strict=False))
    source = pipeline.Source(text, name_example, processes * rows, open=Records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "splits", lambda folder: ["train"])
        alone, together = drawn(source, config, 4), drawn(source, config, 4, processes)
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one["name"], many["name"])
        np.testing.assert_array_equal(one["drawn"], many["drawn"])


@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=3), weights=st.lists(st.floats(0.2, 5), min_size=3))
def test_shares_follow_weights_and_nothing_is_lost_or_repeated_early(sizes, weights):
    config = configuration.load("configs/demo/teacher.py:smoke", ["--config.data.prefetch=1"])
    weights = weights[: len(sizes)]
    text = ",".join(f"{c}-{n}:{w!r}" for c, n, w in zip("abc", sizes, weights, strict=False))
    source = pipeline.Source(text, name_example, 30, open=Records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "splits", lambda folder: ["train"])
        names = [n for batch in drawn(source, config, 5) for n in batch["name"].ravel()]
    for letter, size, weight in zip("abc", sizes, weights, strict=False):
        mine = [n for n in names if n[0] == letter]
        assert abs(len(mine) / len(names) - weight / sum(weights)) < 0.025
        epochs = collections.Counter(mine).values()  # each epoch ends before the next begins
        assert max(epochs) - (min(epochs) if len(epochs) == size else 0) <= 1


def test_a_mixed_run_resumes_where_it_stopped(folders, config):
    source = pipeline.Source(f"{folders['a']}:3,{folders['b']}", examples.face_example, 8)
    first = [b for b, _ in zip(pipeline.train_batches({"faces": source}, config), range(6), strict=False)]
    iterator = iter(pipeline.train_batches({"faces": source}, config))
    for _ in range(4):
        next(iterator)
    again = iter(pipeline.train_batches({"faces": source}, config))
    again.set_state(iterator.get_state())
    for expected in first[4:]:
        for field, value in next(again)["faces"].items():
            np.testing.assert_array_equal(value, expected["faces"][field])


def test_one_data_set_is_drawn_as_without_a_weight(folders, config):
    one, same = (
        next(iter(pipeline.train_batches({"faces": pipeline.Source(p, examples.face_example, 8)}, config)))
        for p in (folders["a"], f"{folders['a']}:2")
    )
    np.testing.assert_array_equal(one["faces"]["image"], same["faces"]["image"])


def test_evaluation_reads_every_data_set_once(folders, config):
    text = f"{folders['a']}:9,{folders['b']}"
    source = pipeline.Source(text, name_example, 4, "dev")
    names = [str(n) for b in pipeline.eval_batches(source, config) for n in b["name"][b["weight"] > 0].ravel()]
    assert names == [f"a{i}" for i in range(5)] + [f"b{i}" for i in range(6)]
    joined = mixture.open_split(text, "dev")
    assert joined[7]["name"] == joined.fields(7, ("name",))[0] == "b2"


def test_a_task_trains_on_a_mixture(folders):
    config = configuration.load("configs/demo/teacher.py:smoke", ["--config.data.balanced=True"])
    config.data.faces = f"{folders['a']}:2,{folders['b']}:1"
    config.data.triplets = ""
    data = tasks.open_data(tasks.make(config))
    batch = next(iter(data.batches()))
    assert batch["faces"]["image"].shape == (8, 80, 80, 3)
    assert mixture.splits(data.folders["faces"]) == ["train", "dev"]
    assert (
        len({mixture.fingerprint(t) for t in (config.data.faces, folders["a"], f"{folders['a']},{folders['b']}")}) == 3
    )
    assert mixture.fingerprint(folders["a"]) == shards.fingerprint(folders["a"])


def test_the_form_of_a_mixture(tmp_path):
    member = mixture.Member
    assert mixture.parse("DATA/a") == [member("DATA/a")]
    assert mixture.parse("a:3, b:0.5,gs://bucket/c,gs://bucket/d:2") == [
        *(member("a", 3.0), member("b", 0.5), member("gs://bucket/c"), member("gs://bucket/d", 2.0))
    ]
    odd = tmp_path / "x:1,y"
    odd.mkdir()
    assert mixture.parse(str(odd)) == [member(str(odd))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:0,b", "weight of a .* must be above 0"),
        ("a:-1,b", "above 0"),
        ("a:nan,b", "above 0"),
        ("a,,b", "no folder"),
        ("a:1,b,a", "names a twice"),
    ],
)
def test_a_bad_mixture_is_one_clear_error(text, says):
    with pytest.raises(UserError, match=says):
        mixture.parse(text)


def test_data_sets_that_do_not_go_together_are_named(folders, tmp_path):
    from media import records

    rows = [records.face_record("z", toy.image(0.5, np.random.default_rng(0)), label=0)]
    few = records.faces_features(("a", "b", *records.CLASSES[2:]))
    other = toy.write(tmp_path, "other", few, {"train": rows})
    with pytest.raises(UserError, match="do not have the same classes"):
        mixture.open_members(f"{folders['a']},{other}", "train")
    with pytest.raises(UserError, match="unknown split"):
        mixture.open_members(f"{folders['a']},{folders['b']}", "test")
    with pytest.raises(UserError, match="does not exist"):
        mixture.open_members(f"{folders['a']},{tmp_path / 'nothing'}", "train")
