"""The encoders' logits as features: extracted, recorded, and read by a fusion run when it predicts."""

import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo import predict
from avemo.data import features, shards
from avemo.evaluation import extract
from avemo.runs import recorded_encoders
from avemo.runs.encoder import Encoder
from helpers import tiny_runs, toy
from media.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layer")
    visual = tiny_runs.visual(folder / "visual")
    audio = tiny_runs.audio(folder / "audio", num_classes=5)
    clips = toy.clips(folder, train=1, dev=1, frames=12, segments=1)
    output = extract.extract((visual, audio), clips, str(folder / "features"), progress=False, layer="logits")
    return {"folder": folder, "visual": visual, "audio": audio, "clips": clips, "features": str(output)}


def test_features_are_what_the_classes_say(made):
    (recording,), _ = features.load(made["features"], "train")
    assert (recording.visual.shape, recording.audio.shape) == ((12, 3), (12, 5))
    encoder = Encoder(made["audio"], "audio", feature="logits")
    assert encoder.dim == 5
    record = shards.Shards(made["clips"], "train")[0]
    windows = np.stack([record["log_mel"][row : row + 96] for row in record["audio_index"]])
    np.testing.assert_allclose(recording.audio, encoder(windows)["logits"], atol=1e-5)


def test_another_layer_is_another_data_set(made):
    runs, output = (made["visual"], made["audio"]), str(made["folder"] / "features")
    assert str(extract.extract(runs, made["clips"], output, progress=False, layer="logits")) == made["features"]
    with pytest.raises(UserError, match="features of other encoders"):
        extract.extract(runs, made["clips"], output, progress=False)


def test_traces_have_no_logits(made, tmp_path):
    with pytest.raises(UserError, match="gives no logits"):
        extract.open_encoder(tiny_runs.audio(tmp_path / "audio"), layer="logits")


def test_a_fusion_run_reads_the_same_layer(made, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    recorded_encoders.record(run, made["features"])
    found = recorded_encoders.resolve(run, ConfigDict({"data": {}}))
    assert found.outputs == {"visual": "logits", "audio": "logits"}
    fusion = tiny_runs.fusion(tmp_path / "fusion", made["visual"], made["audio"], dims={"visual": 3, "audio": 5})
    card = json.loads((pathlib.Path(fusion) / "encoders.json").read_text())
    for modality in ("visual", "audio"):
        card[modality]["output"] = "logits"
    (pathlib.Path(fusion) / "encoders.json").write_text(json.dumps(card))
    models = predict.open_models(fusion)
    assert (models.visual.dim, models.audio.dim) == (3, 5)
    # A run that reads the descriptor of the same encoder keeps its own layer.
    dims = {"visual": 128, "audio": 16}
    other = tiny_runs.fusion(tmp_path / "other", made["visual"], made["audio"], dims=dims)
    first, second = predict.open_models(f"{fusion},{other}").runs
    assert (first.visual.dim, second.visual.dim) == (3, 128)


def test_features_have_their_name_only_together_with_their_card(made, tmp_path, monkeypatch):
    """Stopped after the last record: without the card the next encoders would sign these features."""
    dumps, output = json.dumps, tmp_path / "features"

    def stopped(value, **options):
        if isinstance(value, dict) and "clips" in value:  # the card
            raise KeyboardInterrupt
        return dumps(value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(extract.json, "dumps", stopped)
        with pytest.raises(KeyboardInterrupt):
            extract.extract((made["audio"],), made["clips"], str(output), progress=False)
    assert list((output / "features").iterdir()) == []
    (output / "features/.partial-killed").mkdir()
    found = extract.extract((made["audio"],), made["clips"], str(output), progress=False)
    assert [path.name for path in (output / "features").iterdir()] == [found.name]
    assert json.loads((found / "extract.json").read_text())["audio"]["workdir"] == made["audio"]
    (found / "extract.json").unlink()
    with pytest.raises(UserError, match="does not say which encoders made it"):
        extract.extract((made["audio"],), made["clips"], str(output), progress=False)
