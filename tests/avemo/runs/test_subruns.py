"""A run that fine-tuned a fusion with its encoders, used on a video."""

import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest

import launch
from avemo import configuration, predict, tasks
from avemo.data.shards import find_dataset
from avemo.evaluation import extract
from avemo.predict import recording
from avemo.release import install, pack
from avemo.runs import checkpoints, run_folder
from helpers import films, tiny_runs, toy
from media.errors import UserError


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An untrained fusion run with untrained encoders beside its folder."""
    folder = tmp_path_factory.mktemp("start")
    encoders = tiny_runs.visual(folder / "face"), tiny_runs.audio(folder / "sound")
    config = folder / "face" / "config.json"  # a teacher, so that no other run taught it
    config.write_text(json.dumps({**json.loads(config.read_text()), "task": "teacher"}))
    return tiny_runs.fusion(folder / "fusion", *encoders, films.FACES)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", seconds=2.0, sound=2.0)


def finished(start, workdir, change=lambda x: x):
    """A finished run's folder, made from changed copies of the weights it started from; nothing is trained."""
    clips = toy.clips(workdir.parent / "clips", train=1, dev=1, frames=10, segments=1)
    overrides = [f"--config.fusion={start}", f"--config.data.clips={clips}", "--config.data.delay=2.0"]
    config = configuration.load("configs/demo/end_to_end.py", overrides)
    run_folder.prepare_workdir(config, workdir)
    stage = tasks.make(config)
    data = tasks.open_data(stage)
    variables = jax.device_get(stage.init(jax.random.key(0), data.spec()))
    variables["params"] = jax.tree.map(change, variables["params"])
    data.finish(workdir, variables, {"evaluated_step": 7, "metrics": {"dev": {"ccc_mean": 0.5}}})
    return variables


def analysed(workdir, film):
    return predict.analyse(predict.open_models(workdir), recording.probe(film))


def test_untouched_weights_answer_as_the_runs_they_came_from(start, film, tmp_path):
    finished(start, tmp_path / "run")
    ours, theirs = (analysed(str(w), film) for w in (tmp_path / "run", start))
    for name, value in theirs.values.items():
        np.testing.assert_array_equal(ours.values[name], value)
    assert (ours.face == theirs.face).all()
    assert predict.open_models(str(tmp_path / "run")).delay == 2.0
    assert predict.open_models(start).delay == 1.0


def test_trained_weights_answer_wherever_the_folder_is(start, film, tmp_path):
    variables = finished(start, tmp_path / "run", lambda x: x * np.float32(1.1))
    for name in ("fusion", "visual", "audio"):
        taken = checkpoints.load(tmp_path / "run" / "parts" / name)[2]["params"]
        jax.tree.map(np.testing.assert_array_equal, taken, variables["params"][name])
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    command = ["predict", f"--workdir={tmp_path / 'elsewhere'}", f"--input={film}", f"--output={tmp_path / 'out'}"]
    assert launch.main([*command, "--files=csv"]) == 0
    assert (tmp_path / "out" / "trace.csv").stat().st_size > 1000
    ours, theirs = (analysed(str(w), film) for w in (tmp_path / "elsewhere", start))
    assert np.abs(ours.values["traces"] - theirs.values["traces"]).max() > 1e-3


def test_a_release_has_all_its_networks_and_what_they_learnt_from(start, film, tmp_path, monkeypatch):
    finished(start, tmp_path / "run", lambda x: x * np.float32(1.1))
    own = {"title": "Corpus of one's own", "licence": "CC BY 4.0", "splits": {}}
    (pathlib.Path(find_dataset(tmp_path / "clips")) / "card.json").write_text(json.dumps(own))
    result = {"task": "end_to_end", "step": 60, "evaluated_step": 7, "metrics": {"dev": {"ccc_mean": 0.5}}}
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    made = pack.pack(str(tmp_path / "run"), str(tmp_path / "tuned.zip"))
    assert sorted(made["runs"]) == ["run", "run_audio", "run_visual"]
    with zipfile.ZipFile(tmp_path / "tuned.zip") as file:
        card = file.read("MODEL_CARD.md").decode()
    assert "- Corpus of one's own: **CC BY 4.0**. (`run`, `run_audio`, `run_visual`)" in card
    assert card.count("step 7 of 60, the best by `dev/ccc_mean`") == 3
    assert "| ccc_mean | 0.5000 |" in card
    assert str(tmp_path) not in card
    monkeypatch.setenv("AVEMO_CACHE", str(tmp_path / "cache"))
    install.install(str(tmp_path / "tuned.zip"))
    shutil.rmtree(tmp_path / "clips")
    expected, got = (analysed(w, film) for w in (str(tmp_path / "run"), "run"))
    np.testing.assert_array_equal(got.values["traces"], expected.values["traces"])


def test_extract_says_where_the_encoders_are(start, tmp_path):
    finished(start, tmp_path / "run")
    shutil.copy(tmp_path / "run" / "parts" / "fusion" / "weights.npz", tmp_path / "run")  # any weights will do
    with pytest.raises(UserError, match=r"Its encoders are in .*/run/parts\.$"):
        extract.open_encoder(str(tmp_path / "run"))
    assert extract.open_encoder(str(tmp_path / "run" / "parts" / "visual")).modality == "visual"


def test_a_run_that_is_not_finished_says_so(start, film, tmp_path, capsys):
    finished(start, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "parts")
    command = ["predict", f"--workdir={tmp_path / 'run'}", f"--input={film}", f"--output={tmp_path / 'out'}"]
    assert launch.main(command) == 2
    assert "is not finished, so it has no parts/fusion yet" in capsys.readouterr().err
    assert not pathlib.Path(tmp_path / "out").exists()
