"""Long recordings in windows at evaluation give what whole recordings give, if a frame needs no other."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo.data.features import Recording
from avemo.tasks import audiovisual_data
from media.errors import UserError


def recording(name, frames):
    rng = np.random.default_rng(frames)
    face, there = rng.normal(size=(frames, 3)).astype(np.float32), np.ones(frames, bool)
    nothing = np.zeros((frames, 0), np.float32)
    return Recording(
        *(name, name, 10.0, np.arange(frames) / 10, nothing, nothing, there, there),
        *(face[:, :2], there, np.zeros((frames, 0, 2), np.float32), -1),
        others={"face": face, "face_mask": there},
    )


def predict(variables, batch):
    assert set(batch) == {"face", "face_mask", "mask"}
    predict.shapes.add(batch["face"].shape)
    return {"traces": batch["face"][..., :2] * batch["mask"][..., None]}


@pytest.mark.parametrize("data", [{}, {"eval_length": "40"}, {"eval_length": 40, "eval_hop": "15"}])
def test_windows_are_joined_to_the_whole(data):
    recordings = [recording("a", 100), recording("b", 37), recording("c", 40)]
    config = ConfigDict({"model": {"streams": "face"}, "data": {"eval_batch": 4, **data}})
    predict.shapes = set()
    out = audiovisual_data.predict_recordings(predict, {}, recordings, config)
    for one, said in zip(recordings, out, strict=True):
        np.testing.assert_allclose(said["traces"][: len(one)], one.targets, atol=1e-6)
    assert predict.shapes == {(4, 40 if data else 100, 3)}  # one program


@pytest.mark.parametrize("data", [{"eval_length": "long"}, {"eval_length": 10, "eval_hop": 11}])
def test_wrong_windows_are_user_errors(data):
    config = ConfigDict({"model": {"streams": "face"}, "data": {"eval_batch": 4, **data}})
    with pytest.raises(UserError, match=r"data\.eval"):
        audiovisual_data.predict_recordings(predict, {}, [recording("a", 100)], config)
