"""Records are written as TFDS would write them, and reading gives back what was stored."""

import io

import numpy as np
import pytest
from tensorflow_datasets.core import example_serializer

from media import records
from media.images import encode_image, encode_jpeg


def face(rng):
    image = encode_jpeg(rng.integers(0, 255, (8, 10, 3), np.uint8))
    return lambda: records.face_record("a é", image, label=3, valence=0.25, subject="s")


def triplet(rng):
    images = [encode_jpeg(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(3)]
    return lambda: {
        "name": "t", "images": [records.jpeg(i) for i in images], "odd": 2, "type": 1, "agreement": np.float32(0.75),
    }  # fmt: skip


def clip(rng, frames=3, rows=300, raters=6):
    images = [encode_jpeg(np.full((4, 4, 3), i, np.uint8)) for i in range(frames)]
    arrays = {
        "time": np.arange(frames, dtype=np.float32) / 25,
        "face_mask": rng.random(frames) < 0.5,
        "face_box": rng.random((frames, 4), np.float32),
        "face_confidence": rng.random(frames, np.float32),
        "log_mel": rng.standard_normal((rows, 64)).astype(np.float32),
        "audio_index": rng.integers(0, rows - 95, frames).astype(np.int32),
        "audio_mask": np.ones(frames, bool),
        "targets": rng.standard_normal((frames, 2)).astype(np.float32),
        "target_mask": np.ones(frames, bool),
        "raters": rng.standard_normal((frames, raters, 2)).astype(np.float32),
    }
    plain = {"recording": "P16", "subject": "", "segment": 300, "fps": np.float32(25), "label": -1}
    return lambda: {**arrays, **plain, "frames": [records.jpeg(i) for i in images]}


@pytest.mark.parametrize(
    ("features", "make"),
    [
        (records.faces_features(), face),
        (records.triplets_features(), triplet),
        (records.clips_features(num_raters=6), clip),
        (records.clips_features(), lambda rng: clip(rng, raters=1)),
        (records.clips_features(num_raters=6), lambda rng: clip(rng, frames=0)),
    ],
)
def test_the_bytes_are_those_of_tfds(features, make):
    record = make(np.random.default_rng(0))
    theirs = example_serializer.ExampleSerializer(features.get_serialized_info())
    expected = theirs.get_tf_example(features.encode_example(record())).SerializeToString(deterministic=True)
    assert records.Serializer(features).encode(record()) == expected


def test_a_clip_comes_back():
    record = clip(np.random.default_rng(1))
    serializer = records.Serializer(records.clips_features(num_raters=6))
    back = serializer.decode(serializer.encode(record()))
    for name, value in record().items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[name], value)
            assert back[name].dtype == value.dtype
    assert back["segment"] == 300
    assert back["label"] == -1
    assert len(back["frames"]) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"raters": np.zeros((3, 5, 2))}, r"'raters' has shape \(3, 5, 2\)"),
        ({"label": 8}, "'label' is 8"),
        ({"time": np.zeros((3, 1))}, "'time'"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_refused(change, said):
    record = {**clip(np.random.default_rng(0))(), **change}
    with pytest.raises(ValueError, match=said):
        records.Serializer(records.clips_features(num_raters=6)).encode(record)
    record.pop("fps")
    with pytest.raises(ValueError, match="'fps' is missing"):
        records.Serializer(records.clips_features(num_raters=6)).encode(record)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audio_mask": np.ones(2, bool)}, "audio_mask has 2 entries for 3 frames"),
        ({"time": np.array([0.0, 0.04, 0.04], np.float32)}, "do not rise"),
        ({"audio_index": np.array([0, 0, 205])}, "beyond the 300 log-mel rows"),
    ],
)
def test_a_clip_that_makes_no_sense_is_noticed(change, said):
    with pytest.raises(ValueError, match=said):
        records.check_clip({**clip(np.random.default_rng(0))(), **change})


def test_extracted_features_have_a_schema():
    features = records.extracted_features(128, 64, num_raters=6)
    assert features["visual"].shape == (None, 128)
    assert features["raters"].shape == (None, 6, 2)
    assert records.extracted_features(1, 1)["raters"].shape == (None, 1, 2)


def test_jpeg_bytes_are_marked_once():
    assert isinstance(records.jpeg(b"x"), io.BytesIO)


def test_webp_is_smaller_and_comes_back_in_rgb():
    yy, xx = np.mgrid[:64, :64].astype(np.uint8)
    image = np.stack([2 * xx + 100, 2 * yy, np.full_like(xx, 10)], axis=-1)
    data = encode_image(image, "webp")
    assert data[:4] == b"RIFF"
    assert data[8:12] == b"WEBP"
    assert len(data) < len(encode_image(image, "jpeg"))
    serializer = records.Serializer(records.faces_features(image_format="webp"))
    back = serializer.decode(serializer.encode(records.face_record("a", data)))["image"]
    assert np.abs(back.astype(int) - image).mean() < 3
