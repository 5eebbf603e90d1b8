"""Feature shards made from tables train, are scored, swept and reported like extracted ones."""

import json

import numpy as np
import pytest

import launch
from avemo import report
from avemo.data import features
from avemo.runs import recorded_encoders
from data_prep import command_line
from media.errors import UserError

RATE, SECONDS = 10, 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six recordings with two tables each: faces at 10 Hz that follow the labels, sound at 25 Hz that does not."""
    rng = np.random.default_rng(0)
    source = tmp_path_factory.mktemp("tables")
    for name in ("train_1", "train_2", "train_3", "train_4", "dev_1", "dev_2"):
        time = np.arange(RATE * SECONDS) / RATE
        labels = np.stack([np.sin(time + rng.uniform(0, 6)), np.cos(time / 2 + rng.uniform(0, 6))], axis=1) / 2
        fine = np.arange(25 * SECONDS) / 25
        for folder, at, columns in (
            ("labels", time, labels),
            ("faces", time, labels + rng.normal(0, 0.1, labels.shape)),
            ("sound", fine, rng.normal(size=(len(fine), 3))),
        ):
            (source / folder).mkdir(exist_ok=True)
            header = "time,valence,arousal" if folder == "labels" else "time," + ",".join("abc"[: columns.shape[1]])
            rows = np.column_stack([at, columns])
            np.savetxt(source / folder / f"{name}.csv", rows, "%.5f", ",", header=header, comments="")
    output = tmp_path_factory.mktemp("shards")
    flags = ["--audio=sound:align=mean", "--visual=faces", "--labels=labels", "--quiet", "--workers=1"]
    assert command_line.main(["features", f"--source={source}", f"--output={output}", *flags]) == 0
    return output / "features"


def test_they_are_read_like_extracted_features(shards):
    recordings, _ = features.load(str(shards), "train")
    assert [recording.name for recording in recordings] == ["train_1", "train_2", "train_3", "train_4"]
    first = recordings[0]
    assert first.audio.shape == (RATE * SECONDS, 3)
    assert first.visual.shape == (RATE * SECONDS, 2)
    assert first.visual_mask.all()
    assert first.fps == pytest.approx(RATE)


def test_no_encoder_is_known_for_them(shards):
    with pytest.raises(UserError, match="was made from tables by `data_prep features`, so no encoder is known"):
        recorded_encoders.describe(str(shards))


@pytest.mark.slow
def test_train_evaluate_sweep_and_report(shards, tmp_path):
    data, run = f"--config.data.features={shards}", tmp_path / "run"
    small = ["--config.data.sequence_length=40", "--config.data.sequence_hop=20", "--config.data.delay=0.0"]
    small += ["--config.steps=60", "--config.log_every=20", "--config.eval_every=20", "--config.data.batch.sequences=4"]
    assert launch.main(["train", "--config=configs/paper/fusion.py", f"--workdir={run}", data, *small]) == 0
    assert json.loads((run / "result.json").read_text())["metrics"]["dev"]["ccc_mean"] > 0.5
    assert launch.main(["evaluate", f"--workdir={run}", f"--data={shards}"]) == 0
    assert report.write(run).exists()
    sweep = tmp_path / "sweep"
    assert launch.main(["sweep", "--config=configs/recola/delays.py:smoke", f"--workdir={sweep}", data]) == 0
    assert (sweep / "table.md").exists()
