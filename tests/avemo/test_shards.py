import numpy as np
import pytest
import toy

from avemo import shards
from avemo.errors import UserError


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
