"""The release that the project carries: found without a name, verified, calibrated; and a tiny one in its place."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

import launch
from avemo import metrics, predict
from avemo.evaluation import extract
from avemo.predict import open_models, standard_input, stream
from avemo.release import calibration, pack
from avemo.runs import checkpoints, installed, recorded_encoders, shipped, weights
from helpers import films, tiny_runs, toy
from media import caches
from media.errors import UserError

CARD = {"title": "Corpus", "licence": "CC BY-NC 4.0", "splits": {}}


def finished(run, role):
    """A tiny run that was trained on data with a card, scored on dev, and that told its predictions."""
    folder = pathlib.Path(run)
    data = folder.parent / "data"
    data.mkdir(exist_ok=True)
    (data / "features.json").write_text("{}")
    (data / "card.json").write_text(json.dumps(CARD))
    (data / "extract.json").write_text(json.dumps({"clips": str(data)}))
    config = json.loads((folder / "config.json").read_text())
    config["best_metric"] = "dev/uar"
    if config["task"] == "student":
        config["task"] = "teacher"  # which learned from nobody
    config["data"][role] = str(data)
    (folder / "config.json").write_text(json.dumps(config))
    result = json.loads((folder / "result.json").read_text())
    result |= {"evaluated_step": 1, "metrics": {"dev": {"accuracy": 0.5, "uar": 0.5, "ece": 0.4}}, "parameters": 123}
    (folder / "result.json").write_text(json.dumps(result | {"class_names": list(tiny_runs.CLASSES)}))
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    logits = 6 * (rng.normal(size=(60, 3)) + np.eye(3)[label])
    (folder / "predictions").mkdir()
    np.savez(folder / "predictions" / "dev.npz", label=label, probability=metrics.softmax(logits))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    faces = finished(tiny_runs.visual(folder / "faces"), "faces")
    speech = finished(tiny_runs.audio(folder / "speech", num_classes=3), "clips")
    experts = {"fusion": "experts", "temporal": "none", "temporal_args": {}, "num_classes": 3}
    experts["fusion_args"] = {"audio_classes": [0, 1, 2], "visual_classes": [0, 1, 1], "weights": [1.0, 1.0]}
    fusion = tiny_runs.fusion(folder / "fusion", faces, speech, films.FACES, dims={"visual": 3, "audio": 3}, **experts)
    recorded = json.loads((folder / "fusion/encoders.json").read_text())
    for modality in ("visual", "audio"):
        recorded[modality]["output"] = "logits"
    (folder / "fusion/encoders.json").write_text(json.dumps(recorded))
    return {"faces": faces, "speech": speech, "fusion": finished(fusion, "features")}


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    pack.pack(runs["fusion"], str(folder / "emotions.zip"), pack.Options(half=True, calibrate=True))
    digest = hashlib.sha256((folder / "emotions.zip").read_bytes()).hexdigest()
    (folder / "emotions.sha256").write_text(f"{digest}  emotions.zip\n")
    return folder


@pytest.fixture
def carried(made, tmp_path, monkeypatch):
    """The tiny release in place of the one that avemo carries; no cache, and a home that cannot be written."""
    folder = tmp_path / "package"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped, "package", lambda: folder)
    monkeypatch.setenv("AVEMO_CACHE", "/proc/nowhere")
    shipped.folder.cache_clear()
    yield folder
    shipped.folder.cache_clear()


def test_predict_needs_no_run_and_says_what_each_modality_says(carried, tmp_path, capsys):
    clip = films.film(tmp_path / "a.mp4", seconds=1.0, squares=[films.still()], sound=1.0)
    out = tmp_path / "out"
    assert launch.main(["predict", f"--input={clip}", f"--output={out}", "--files=csv,json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "without labels of valence and arousal" in told["valence_and_arousal"]
    trace = json.loads((out / "trace.json").read_text())
    assert trace["run"]["workdir"] == "fusion"  # no folder of this machine
    face = trace["faces"][0]
    frames = face["frames"]
    for kind in ("face_alone", "voice_alone"):
        assert face[kind]["label"] in tiny_runs.CLASSES
        assert sum(face[kind]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    for kind in ("p", "face", "voice"):
        total = sum(np.array(frames[f"{kind}_{name}"], float) for name in tiny_runs.CLASSES)
        assert total == pytest.approx(1, abs=1e-4)


def test_a_pipe_says_what_each_modality_says_too(carried, tmp_path):
    clip = films.film(tmp_path / "a.mkv", seconds=0.6, squares=[films.still()], sound=0.6)
    lines = []
    models = open_models(shipped.RUN, batch_size=1)
    with clip.open("rb") as file:
        said = standard_input.predict_pipe(models, file, str(tmp_path / "out"), stream.Options(), emit=lines.append)
    assert said["valence_and_arousal"].startswith("none")
    assert set(json.loads(lines[-1])["face_alone"]) == set(tiny_runs.CLASSES)
    face = json.loads((tmp_path / "out" / "trace.json").read_text())["faces"][0]
    for kind in ("face_alone", "voice_alone"):
        assert sum(face[kind]["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_what_a_face_says_alone_is_without_the_prior_that_the_fusion_takes_out(runs, tmp_path):
    clip = films.film(tmp_path / "a.mp4", seconds=0.6, squares=[films.still()], sound=0.6)
    share = np.array([0.5, 0.3, 0.2])
    changed = tmp_path / "fusion"
    shutil.copytree(runs["fusion"], changed)
    config = json.loads((changed / "config.json").read_text())
    config["model"]["fusion_args"]["visual_prior"] = np.log(share).tolist()
    (changed / "config.json").write_text(json.dumps(config))
    before, after = (
        predict.predict(str(run), str(clip), str(tmp_path / f"out{n}"), files=("json",))["faces"][0]
        for n, run in enumerate((runs["fusion"], changed))
    )
    assert after["voice_alone"] == before["voice_alone"]
    said, divided = (np.array(list(x["face_alone"]["probabilities"].values())) for x in (before, after))
    np.testing.assert_allclose(divided, said / share / (said / share).sum(), atol=1e-4)


def test_its_name_is_its_own_whatever_lies_around_and_without_a_home(carried, tmp_path, monkeypatch):
    (tmp_path / shipped.RUN).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert installed.find(shipped.RUN) == str(shipped.folder() / "fusion")

    def nobody():
        raise RuntimeError("no home")

    monkeypatch.delenv("AVEMO_CACHE")
    monkeypatch.setattr(caches, "user_folder", nobody)
    assert installed.find("emotions/faces") == str(shipped.folder() / "faces")


def test_features_name_its_encoders_as_they_are_called(carried, tmp_path):
    clips = toy.clips(tmp_path, train=1, dev=1, frames=10, segments=1)
    made = extract.extract(["emotions/faces", "emotions/speech"], clips, str(tmp_path / "out"), progress=False)
    unpacked = shipped.folder()
    shipped.remove()  # as at the end of the process
    assert not unpacked.exists()
    found = recorded_encoders.describe(str(made))
    assert [found[modality]["workdir"] for modality in ("visual", "audio")] == ["emotions/faces", "emotions/speech"]
    assert recorded_encoders.located(epath.Path(tmp_path), "visual", "emotions/faces") == str(
        shipped.folder() / "faces"
    )


def test_released_weights_are_rounded_calibrated_and_the_fusion_knows_them(runs, made, carried):
    assert (made / "emotions.zip").stat().st_size < 200_000
    models = open_models(shipped.RUN)
    _, _, before = checkpoints.load(runs["faces"])
    _, _, after = checkpoints.load(installed.find("emotions/faces"))
    dev = np.load(pathlib.Path(runs["faces"]) / "predictions/dev.npz")
    found = calibration.fit(dev["label"], dev["probability"])
    assert found.temperature > 2  # they were far too sure
    folded = weights.halved(calibration.fold("student", before, found))
    assert weights.fingerprint(after) == weights.fingerprint(folded) == models.visual.fingerprint
    result = json.loads((pathlib.Path(installed.find("emotions/faces")) / "result.json").read_text())
    assert result["metrics"]["dev"]["ece"] < result["metrics"]["dev"]["ece_before_calibration"] == 0.4
    card = shipped.read()["MODEL_CARD.md"].decode()
    assert "Calibrated on 60 examples of dev" in card
    assert "commercial use" in card


def uneven(size):
    """Labels of uneven classes, and the answers of a network that is far too sure and knows the classes' shares."""
    rng, shares = np.random.default_rng(0), np.array([0.7, 0.2, 0.1])
    label = rng.choice(3, size, p=shares)
    evidence = 1.5 * (np.eye(3)[label] + 0.8 * rng.normal(size=(size, 3)))
    return label, metrics.softmax(3 * (evidence + np.log(shares)))


def test_calibration_undoes_a_known_temperature_and_what_is_free_of_the_prior():
    label, sure = uneven(6000)
    found = calibration.fit(label, sure)
    assert 0 < found.share < 1
    before, after = (metrics.class_scores(label, p) for p in (sure, found.apply(np.log(sure))))
    assert after["uar"] > before["uar"]
    assert after["accuracy"] > before["accuracy"] - 0.01
    assert after["ece"] < before["ece"]
    # Without what is left the classes are even, whatever share was taken back.
    even = found.temperature * (np.log(found.apply(np.log(sure))) - found.left)
    usual = np.log(sure.mean(0))
    np.testing.assert_allclose(even - even[:, :1], (x := np.log(sure) - usual) - x[:, :1], rtol=0, atol=1e-6)
    assert metrics.class_scores(label, metrics.softmax(even))["uar"] > after["uar"]
    few = calibration.fit(label[:100], sure[:100])
    assert few.share == 0  # too few to know a prior
    assert not few.prior.any()
    assert not few.left.any()


def test_a_released_fusion_of_experts_takes_back_what_the_calibration_left():
    config = ConfigDict({"model": {"fusion_args": {"visual_classes": (0, 1)}}})
    results = {"visual": {"calibration": {"left": [0.5, -0.5]}}, "audio": {"calibration": {"left": [0.0, 0.0]}}}
    assert pack.with_priors(config, results).model.fusion_args.to_dict() == {
        "visual_classes": (0, 1),
        "visual_prior": (0.5, -0.5),
    }
    assert "visual_prior" not in config.model.fusion_args


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "damaged or not a release"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), "SHA-256|damaged"),
        (lambda path: path.with_name("emotions.sha256").write_text("0 emotions.zip"), "is not the release"),
        (lambda path: path.with_name("emotions.sha256").unlink(), "cannot be read"),
    ],
)
def test_a_carried_release_that_was_harmed_is_one_line_with_the_remedy(harm, says, carried, capsys):
    harm(carried / "emotions.zip")
    assert launch.main(["predict", "--input=a.mp4", "--output=o"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    with pytest.raises(UserError, match=says):
        shipped.read()
    assert "Install avemo again" in line
    assert "--workdir" in line


def test_a_carried_release_of_a_newer_format_says_so(carried, monkeypatch):
    from avemo.runs import archive

    monkeypatch.setattr(archive, "FORMAT", 0)
    with pytest.raises(UserError, match=r"is of format 1, but this version reads 0.*Install avemo again"):
        shipped.read()


def test_a_fusion_that_learned_is_not_calibrated_behind_its_back(runs, tmp_path):
    faces = finished(tiny_runs.visual(tmp_path / "faces"), "faces")
    speech = finished(tiny_runs.audio(tmp_path / "speech", num_classes=3), "clips")
    fusion = finished(tiny_runs.fusion(tmp_path / "fusion", faces, speech, films.FACES), "features")
    with pytest.raises(UserError, match="learned from the answers of encoders that were not calibrated"):
        pack.pack(fusion, str(tmp_path / "a.zip"), pack.Options(calibrate=True))
