"""Data sets of named streams: which streams they have, standardisation by group, folds that share recordings."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.data import features
from avemo.data.feature_sets import FeatureSet, with_streams
from helpers import toy
from helpers.sequences import recording
from media import records
from media.errors import UserError


def config(folder, **data):
    model = {"streams": data.pop("streams", "auto")}
    return ConfigDict({"task": "audiovisual", "model": model, "data": {"features": folder, **data}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng, made = np.random.default_rng(0), []
    for number in range(4):
        one = recording(rng, f"r{number}", frames=30)
        voice, face = one.pop("audio") * 3 + number // 2 * 10, one.pop("visual")
        masks = {"voice_mask": one.pop("audio_mask"), "face_mask": one.pop("visual_mask")}
        made.append({**one, "voice": voice, "face": face, **masks, "group": "AB"[number // 2]})
    schema = records.stream_features({"voice": 4, "face": 4})
    return toy.write(tmp_path_factory.mktemp("streams"), "features", schema, {"train": made[::2], "dev": made[1::2]})


def test_a_run_reads_the_streams_of_its_data_set_or_those_that_it_names(folder):
    filled = with_streams(config(folder))
    assert filled.model.streams == ("face", "voice")  # without a card by name
    (first, *_), _ = features.load(folder, "train", ("voice",))
    assert first.stream("voice").shape == (30, 4)
    assert first.group == "A"
    assert first.audio.shape == (30, 0)
    assert list(features.sequence(first, 0, 30, 0.0, ("voice",)))[:2] == ["voice", "voice_mask"]
    with pytest.raises(UserError, match=r"unknown stream \(model.streams\) of .* 'vioce'.*did you mean 'voice'"):
        features.load(folder, "train", ("vioce",))


def test_features_are_standardised_by_their_group(folder):
    data = FeatureSet(folder, config(folder, streams="voice,face", fold="0/2", standardise="group"))
    whole = [*data.recordings("train"), *data.recordings("test")]
    for group in "AB":
        x = np.concatenate([r.stream("voice") for r in whole if r.group == group])
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(0), 1, atol=1e-4)
    with pytest.raises(UserError, match=r"unknown data\.standardise"):
        FeatureSet(folder, config(folder, streams="voice", standardise="speaker"))


def test_folds_share_their_recordings(folder):
    first = FeatureSet(folder, config(folder, streams="voice,face", fold="0/2"))
    second = first.with_fold(config(folder, streams="voice,face", fold="1/2"))
    assert [r.name for r in first.recordings("test")] == ["r0", "r2"]
    assert [r.name for r in second.recordings("test")] == ["r1", "r3"]
    assert first.table()[0] is second.table()[0]
    assert (first.table()[1], second.table()[1]) == ([1, 3], [0, 2])
    assert first.splits == ["test", "train"]
    with pytest.raises(UserError, match=r"has no split .dev.: set data\.dev_part"):
        first.recordings("dev")
    with pytest.raises(UserError, match="not trained together"):
        first.with_fold(config(folder, streams="voice,face"))
