"""A fingerprint covers every byte of a data set, and one of a data set without digests stays as it was."""

import hashlib
import os
import re

import pytest

from avemo.data import shards
from data_prep.preparation import prepare
from media import digests
from media.errors import UserError


@pytest.fixture(params=["array_record", "tfrecord"])
def prepared(request, tmp_path, draw):
    source = draw.affectnet(tmp_path / "a")
    return prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True, format=request.param)[0]


def test_bytes_rewritten_in_the_middle_are_noticed_and_the_record_is_named(prepared):
    (shard,) = prepared.glob("*-train.*")
    before = shards.fingerprint(prepared)
    data = bytearray(shard.read_bytes())
    data[16384] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(UserError, match=rf"{re.escape(shard.name)} is damaged in record \d+: prepare"):
        shards.fingerprint(prepared)
    data[16384] ^= 1
    shard.write_bytes(data)
    assert shards.fingerprint(prepared) == before


def test_a_shard_that_was_replaced_added_or_removed_is_named(prepared, tmp_path):
    (train,), (dev,) = (list(prepared.glob(f"*-{split}.*")) for split in ("train", "dev"))
    kept = train.read_bytes()
    train.write_bytes(dev.read_bytes())
    with pytest.raises(UserError, match=rf"{train.name} was changed since it was written"):
        shards.fingerprint(prepared)
    train.unlink()
    with pytest.raises(UserError, match=f"shard .*{train.name} is missing"):
        shards.fingerprint(prepared)
    train.write_bytes(kept)
    extra = prepared / dev.name.replace("-dev.", "-test.")
    extra.write_bytes(dev.read_bytes())
    with pytest.raises(UserError, match=f"{extra.name} was added to a finished data set"):
        shards.fingerprint(prepared)


def test_a_data_set_without_digests_has_its_old_fingerprint(prepared):
    (prepared / digests.FILENAME).unlink()
    digest = hashlib.sha256()
    for path in sorted(prepared.iterdir()):
        if path.name in ("features.json", "dataset_info.json"):
            digest.update(path.read_bytes())
        elif "record-" in path.name:
            data = path.read_bytes()
            digest.update(f"{path.name}:{len(data)}".encode() + data[: 1 << 16] + data[-(1 << 16) :])
    assert shards.fingerprint(prepared) == digest.hexdigest()[:16]


def test_damaged_digests_are_one_line(prepared):
    (prepared / digests.FILENAME).write_text('{"sha256": {"a": 1}}')
    with pytest.raises(UserError, match=r"digests.json is damaged: prepare the data set again"):
        shards.fingerprint(prepared)
