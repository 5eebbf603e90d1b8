"""Tables of features and labels become the records that a fusion trains on."""

import json

import numpy as np
import pytest

from data_prep import command_line
from data_prep.features import align, specs
from media.errors import UserError

RATE, SECONDS = 10, 3.0


def table(folder, name, header, columns, delimiter=";", line="'{name}'{d}{time:.6f}{d}{cells}"):
    """Writes an AVEC table: a name, a time and the columns `[N, D]`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        line.format(name=name, time=i / RATE, d=delimiter, cells=delimiter.join(f"{v:.6f}" for v in row))
        for i, row in enumerate(columns)
    ]
    (folder / f"{name}.csv").write_text("\n".join([delimiter.join(["name", "timestamp", *header]), *rows]) + "\n")


@pytest.fixture
def sewa(tmp_path):
    """Three recordings in the layout of AVEC 2019: labels, two tables of sound and one of faces."""
    rng = np.random.default_rng(0)
    source = tmp_path / "sewa"
    for name in ("Train_DE_01", "Train_HU_01", "Devel_DE_01"):
        table(source / "labels", name, ("arousal", "valence", "liking"), rng.uniform(-1, 1, (30, 3)))
        table(source / "predictions_mfcc", name, ("a", "b"), rng.normal(size=(33, 2)))
        table(source / "predictions_egemaps", name, ("c",), rng.normal(size=(33, 1)))
        table(source / "predictions_visual", name, ("d", "e", "f"), rng.normal(size=(33, 3)))
    return source


def prepare(source, output, *flags):
    """Runs the command and returns the status and the data set's folder."""
    status = command_line.main(
        ["features", f"--source={source}", f"--output={output}", "--quiet", "--workers=1", *flags]
    )
    return status, output / "features" / "1.0.0"


def records(folder, split):
    """The records of a split by name."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(folder).as_data_source(split)
    return {record["recording"].decode(): record for record in source}


def test_traces_of_sewa_become_streams(sewa, tmp_path):
    status, folder = prepare(
        sewa,
        tmp_path / "out",
        "--audio=predictions_mfcc,predictions_egemaps",
        "--visual=predictions_visual:cols=d|f",
        "--labels=labels",
        "--group=_(DE|HU)_",
    )
    assert status == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["streams"] == [
        {"name": "mfcc", "modality": "audio", "dim": 2, "source": "predictions_mfcc"},
        {"name": "egemaps", "modality": "audio", "dim": 1, "source": "predictions_egemaps"},
        {"name": "visual", "modality": "visual", "dim": 2, "source": "predictions_visual"},
    ]
    train = records(folder, "train")
    assert {name: record["group"].decode() for name, record in train.items()} == {
        "Train_DE_01": "DE",
        "Train_HU_01": "HU",
    }
    (record,) = records(folder, "dev").values()
    said = np.loadtxt(sewa / "labels" / "Devel_DE_01.csv", delimiter=";", skiprows=1, usecols=(1, 2, 3))
    np.testing.assert_allclose(record["time"], said[:, 0], atol=1e-6)
    np.testing.assert_allclose(record["targets"], said[:, [2, 1]], atol=1e-6)  # valence comes first
    seen = np.loadtxt(sewa / "predictions_visual" / "Devel_DE_01.csv", delimiter=";", skiprows=1, usecols=(2, 4))
    np.testing.assert_allclose(record["visual"], seen[:30], atol=1e-6)
    assert record["visual_mask"].all()
    assert record["target_mask"].all()
    assert record["fps"] == pytest.approx(RATE)
    assert np.isnan(record["raters"]).all()


def test_names_of_streams():
    streams = specs.streams({"audio": "x/p_a,x/p_b:rate=5", "visual": "faces:name=seen"})
    assert [(s.name, s.modality) for s in streams] == [("a", "audio"), ("b", "audio"), ("seen", "visual")]
    assert specs.streams({"visual": "x/any"})[0].name == "visual"
    with pytest.raises(UserError, match="two streams are called 'a'"):
        specs.streams({"audio": "x/a,y/a"})
    with pytest.raises(UserError, match="did you mean 'rate'"):
        specs.streams({"audio": "x:rat=5"})


def test_alignment():
    time, values = np.arange(10) / 10, np.arange(10, dtype=np.float32)[:, None]
    valid = np.arange(10) != 5
    out, mask = align.to_times(time, values, valid, np.array([0.0, 0.05, 0.3, 0.5, 0.44, 0.9, 1.2]))
    np.testing.assert_allclose(out[:, 0], [0, 0.5, 3, 0, 4, 9, 0], atol=1e-6)
    np.testing.assert_array_equal(mask, [True, True, True, False, True, True, False])
    out, mask = align.to_times(time, values, valid, np.array([0.1, 0.5, 2.0]), "mean", 0.3)
    np.testing.assert_allclose(out[:, 0], [1, 5, 0], atol=1e-6)
    np.testing.assert_array_equal(mask, [True, True, False])
    out, mask = align.to_times(time, values, valid, np.array([0.06, 0.5, 2.0]), "nearest")
    np.testing.assert_allclose(out[:, 0], [1, 0, 0])
    np.testing.assert_array_equal(mask, [True, False, False])


FLAGS = ("--audio=predictions_mfcc", "--visual=predictions_visual", "--labels=labels")


def test_a_dry_run_says_what_it_found_and_writes_nothing(sewa, capsys):
    before = sorted(sewa.rglob("*"))
    assert command_line.main(["features", f"--source={sewa}", *FLAGS, "--group=_(DE|HU)_", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "audio   audio     2    10         0.00 to 3.20  100.0%    3/3         predictions_mfcc" in out
    assert "labels: 3 of 3 recordings, 90 frames at 10 Hz, 0.00 to 2.90 s" in out
    assert "train: 2 recordings (DE 1, HU 1)" in out
    assert out.endswith("no problem was found\n")
    table(sewa / "predictions_mfcc", "Train_DE_01", ("a", "b"), np.zeros((5, 2)))
    assert command_line.main(["features", f"--source={sewa}", *FLAGS, "--dry_run"]) == 2
    out = capsys.readouterr().out
    assert "problem: " in out
    assert "Train_DE_01.csv: line 6: stream audio ends at 0.4 s, 2.40 s before the labels" in out
    assert sorted(sewa.rglob("*")) == before


def test_columns_that_never_change_are_noted(sewa, tmp_path):
    for path in (sewa / "predictions_visual").iterdir():
        values = np.random.default_rng(1).normal(size=(33, 3))
        values[:, 1] = 0.25
        table(sewa / "predictions_visual", path.stem, ("d", "e", "f"), values)
    _, folder = prepare(sewa, tmp_path / "out", *FLAGS)
    notes = json.loads((folder / "card.json").read_text())["notes"]
    assert notes == ["1 columns never change in train, leave them out by cols=!NAME: visual:e"]
    assert "Streams" in (folder / "card.html").read_text()
