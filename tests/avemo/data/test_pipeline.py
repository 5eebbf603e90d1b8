import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from avemo import configuration
from avemo.data import examples, pipeline
from avemo.data.shards import Shards
from helpers import toy


def sources(tmp_path):
    return {
        "faces": pipeline.Source(toy.faces(tmp_path), examples.face_example, 6),
        "triplets": pipeline.Source(toy.triplets(tmp_path), examples.triplet_example, 4),
    }


def test_batches_are_a_function_of_seed_and_position(tmp_path):
    config = configuration.load("configs/demo/teacher.py:smoke")
    streams = sources(tmp_path)
    first = [batch for batch, _ in zip(pipeline.train_batches(streams, config), range(5), strict=False)]
    assert first[0]["faces"]["image"].shape == (6, 80, 80, 3)
    assert first[0]["triplets"]["images"].shape == (4, 3, 80, 80, 3)
    iterator = iter(pipeline.train_batches(streams, config))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    again = iter(pipeline.train_batches(streams, config))
    again.set_state(state)
    resumed = next(again)
    for source, fields in resumed.items():
        for name, value in fields.items():
            np.testing.assert_array_equal(value, first[3][source][name])
    config.seed = 1
    other = next(iter(pipeline.train_batches(streams, config)))
    assert not np.array_equal(other["faces"]["image"], first[0]["faces"]["image"])


def test_every_example_is_seen_once_an_epoch(tmp_path):
    config = configuration.load("configs/demo/teacher.py:smoke")
    source = pipeline.Source(toy.faces(tmp_path, train=24), lambda record, rng, config: {"name": record["name"]}, 8)
    batches = iter(pipeline.train_batches({"faces": source}, config))
    names = [n for _ in range(3) for n in next(batches)["faces"]["name"]]
    assert len(set(names)) == 24


def test_balanced_sampling_meets_every_class_equally_often(tmp_path):
    from media import records

    rng = np.random.default_rng(0)
    labels = [0] * 9 + [1] * 2 + [4] + [-1] * 3
    rows = [records.face_record(str(i), toy.image(0.5, rng), label=label) for i, label in enumerate(labels)]
    folder = toy.write(tmp_path, "faces", records.faces_features(), {"train": rows})
    balanced = pipeline.Balanced(Shards(folder, "train"))
    met = [int(balanced[i]["label"]) for i in range(len(balanced))]
    assert {label: met.count(label) for label in set(met)} == {0: 9, 1: 9, 4: 9}
    assert {balanced[i]["name"] for i in range(len(balanced))} == {str(i) for i in range(12)}


def test_the_odd_image_comes_last(tmp_path):
    config = configuration.load("configs/demo/teacher.py:smoke")
    source = pipeline.Source(toy.triplets(tmp_path), examples.triplet_example, 4, "dev")
    for batch in pipeline.eval_batches(source, config):
        levels = batch["images"].mean((2, 3, 4))
        assert (levels[:, 2] > levels[:, :2].max(1) + 50).all()


def test_the_last_evaluation_batch_is_padded_with_weight_0(tmp_path):
    config = configuration.load("configs/demo/teacher.py:smoke")
    source = pipeline.Source(toy.faces(tmp_path), examples.face_example, 8, "dev")
    weights = [batch["weight"] for batch in pipeline.eval_batches(source, config)]
    assert [w.tolist() for w in weights] == [[1] * 8, [1] * 4 + [0] * 4]


def test_colours_are_rgb(tmp_path):
    red = np.zeros((80, 80, 3), np.uint8)
    red[..., 0] = 200
    from media import records
    from media.images import encode_jpeg

    rows = [records.face_record("red", encode_jpeg(red), label=0)]
    folder = toy.write(tmp_path, "faces", records.faces_features(), {"train": rows})
    config = configuration.load("configs/demo/teacher.py:smoke")
    source = pipeline.Source(folder, examples.face_example, 1, "train")
    (batch,) = pipeline.eval_batches(source, config)
    assert batch["image"][0].mean((0, 1)).argmax() == 0


def test_windows_follow_the_frames(tmp_path):
    config = configuration.load("configs/demo/audio.py:smoke")
    config.data.delay = 0.0
    config.data.window_hop = 0.4
    config.data.windows = 4
    source = pipeline.Source(toy.clips(tmp_path), examples.window_example, 4, "dev")
    for batch in pipeline.eval_batches(source, config):
        keep = batch["weight"] > 0
        # The toy corpus writes arousal into the level of the log-mel; a window averages it over 0.96 s.
        level = batch["windows"][keep].mean((2, 3)).ravel()
        assert np.corrcoef(level, batch["targets"][keep][..., 1].ravel())[0, 1] > 0.95


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0, 3), st.sampled_from([5.2, 25.0, 29.97]))
def test_delay_moves_labels_and_masks_the_rest(length, delay, fps):
    targets = np.arange(2 * length, dtype=np.float32).reshape(length, 2)
    moved, mask = examples.delayed_targets(targets, np.ones(length, bool), delay, fps)
    shift = min(round(delay * fps), length)
    assert mask.sum() == length - shift
    np.testing.assert_array_equal(moved[: length - shift], targets[shift:])
