import pathlib
import shutil

import numpy as np
import pytest

from avemo import configuration
from avemo.data import examples, pipeline, shards
from data_prep.preparation import prepare
from helpers import buckets, toy
from media.errors import UserError


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return toy.faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return toy.clips(tmp_path_factory.mktemp("clips"), train=2, dev=1)


def test_reads_every_field_with_its_type(clips):
    source = shards.Shards(clips, "train")
    record = source[0]
    assert len(source) == 4
    assert record["recording"] == "train0"
    assert record["log_mel"].shape[1] == 64
    assert record["log_mel"].dtype == np.float32
    assert record["face_mask"].dtype == np.bool_
    assert record["targets"].shape == (60, 2)
    assert record["raters"].shape == (60, 1, 2)
    assert record["frames"].decode(3).shape == (toy.SIZE, toy.SIZE, 3)
    assert source.fields(1, ("segment", "recording")) == (1, "train0")


def test_opens_the_folder_above_and_lists_splits(faces):
    above = str(faces).removesuffix("/1.0.0")
    assert len(shards.Shards(above, "dev")) == 12
    assert sorted(shards.splits(above)) == ["dev", "train"]
    assert shards.Shards(above, "train").class_names[1] == "happy"


def test_fingerprint_follows_the_content(faces, tmp_path):
    assert shards.fingerprint(faces) == shards.fingerprint(faces)
    other = toy.faces(tmp_path, train=33)
    assert shards.fingerprint(other) != shards.fingerprint(faces)


def test_bad_folders_are_one_clear_error(faces, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        shards.Shards(tmp_path / "no", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no prepared data set"):
        shards.Shards(tmp_path / "empty", "train")
    with pytest.raises(UserError, match=r"unknown split .* Known: dev, train"):
        shards.Shards(faces, "tset")


def test_a_half_written_shard_is_named(tmp_path):
    folder = toy.faces(tmp_path)
    (shard,) = [p for p in tmp_path.rglob("*train.array_record*")]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{shard.name}.*prepare the data set again"):
        shards.Shards(folder, "train")
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        shards.Shards(folder, "train")


@pytest.mark.parametrize("format", ["array_record", "tfrecord"])
def test_a_shard_that_the_disk_does_not_give_is_not_called_damaged(formats, tmp_path, format):
    folder = shutil.copytree(formats[format], tmp_path / "1.0.0")
    shard = sorted(folder.glob(f"*{format}-00001*"))[0]
    shard.unlink()
    shard.mkdir()  # read by nobody, not even root
    with pytest.raises(UserError, match=f"{shard.name} cannot be read .*: check its permissions and the disk") as found:
        shards.Shards(folder, "train")
    assert "again" not in str(found.value)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"features": 3}', "\udcff"])
def test_a_damaged_description_is_to_be_prepared_again(formats, tmp_path, name, content):
    folder = shutil.copytree(formats["tfrecord"], tmp_path / "1.0.0")
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"cannot be opened as a data set .*prepare it again") as found:
        shards.Shards(folder, "train")
    assert "\n" not in str(found.value)


def test_a_description_that_the_disk_does_not_give_is_not_called_damaged(formats, tmp_path):
    folder = shutil.copytree(formats["tfrecord"], tmp_path / "1.0.0")
    (folder / "features.json").unlink()
    (folder / "features.json").mkdir()
    with pytest.raises(UserError, match=r"features\.json cannot be read .*: check its permissions and the disk"):
        shards.Shards(folder, "train")


def test_a_bug_is_not_called_damage(formats, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.builder_from_directory", lambda folder: None + 1)
    with pytest.raises(TypeError):
        shards.Shards(formats["tfrecord"], "train")


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """The same faces as ArrayRecord and as TFRecord, in three shards."""
    folder = tmp_path_factory.mktemp("formats")
    source = folder / "pictures"
    source.mkdir()
    for number in range(14):
        (source / f"{number:02}.jpg").write_bytes(toy.image(number / 14, np.random.default_rng(number), size=48))
    return {
        format: prepare("unlabelled", source, folder, format=format, name=format, shards=3, workers=1, quiet=True)[0]
        for format in ("array_record", "tfrecord")
    }


def test_tfrecord_gives_the_records_of_array_record(formats):
    array, sequential = (shards.Shards(formats[name], "train") for name in ("array_record", "tfrecord"))
    assert len(array) == len(sequential) == 14
    for index in range(14):
        one, other = array[index], sequential[index]
        assert one.pop("image").encoded == other.pop("image").encoded
        np.testing.assert_equal(one, other)


def test_tfrecord_trains_in_the_same_order_and_resumes_where_it_stopped(formats):
    config = configuration.load("configs/demo/teacher.py:smoke", ["--config.model.image_size=48"])
    array, sequential = (
        pipeline.train_batches({"faces": pipeline.Source(str(folder), examples.face_example, 6)}, config)
        for folder in (formats["array_record"], formats["tfrecord"])
    )
    iterator, expected = iter(sequential), iter(array)
    for _ in range(3):
        np.testing.assert_array_equal(next(iterator)["faces"]["image"], next(expected)["faces"]["image"])
    again = iter(sequential)
    again.set_state(iterator.get_state())
    for _ in range(3):
        np.testing.assert_array_equal(next(again)["faces"]["image"], next(expected)["faces"]["image"])


def test_a_damaged_tfrecord_is_named_and_not_trained_on(formats, tmp_path):
    folder = shutil.copytree(formats["tfrecord"], tmp_path / "1.0.0")
    shard = sorted(folder.glob("*tfrecord-0000*"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    source = shards.Shards(folder, "train")
    with pytest.raises(UserError, match=rf"{shard.name} is damaged in record \d: prepare"):
        [source[index] for index in range(len(source))]
    shard.write_bytes(data[:-5])
    with pytest.raises(UserError, match=f"{shard.name} is cut short"):
        shards.Shards(folder, "train")


def test_tfrecord_is_read_from_a_bucket(formats, monkeypatch):
    bucket = buckets.install(monkeypatch)
    for path in formats["tfrecord"].iterdir():
        bucket.pipe(f"gs://bucket/faces/1.0.0/{path.name}", path.read_bytes())
    local, remote = (shards.Shards(folder, "train") for folder in (formats["tfrecord"], "gs://bucket/faces"))
    assert shards.splits("gs://bucket/faces") == ["train"]
    assert shards.fingerprint("gs://bucket/faces") == shards.fingerprint(formats["tfrecord"])
    for index in range(len(local)):
        assert remote[index]["image"].encoded == local[index]["image"].encoded


def test_damage_in_an_arrayrecord_file_names_file_and_record(tmp_path):
    data = toy.faces(tmp_path, train=4, dev=1)
    (shard,) = pathlib.Path(data).glob("*train*record-*")
    whole, read, errors = shard.read_bytes(), set(), []
    for at in range(0, len(whole), len(whole) // 60):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            source = shards.Shards(data, "train")
            read.add(tuple(source[i]["image"].encoded[0] for i in range(4)))
        except UserError as error:
            errors.append(str(error))
    assert errors  # most of so small a file is padding
    assert all(shard.name in error for error in errors)
    assert len(read) <= 1  # whatever is read is what was written
