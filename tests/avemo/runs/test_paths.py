"""The paths recorded in a run are found from any working directory, and after everything moved together."""

import shutil

import pytest
from ml_collections import ConfigDict

from avemo.evaluation import extract
from avemo.runs import checkpoints, paths, recorded_encoders, run_folder
from helpers import tiny_runs, toy
from media.errors import UserError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with data and an empty run folder `runs/demo/fusion`; it is the working directory."""
    for name in ("runs/demo/features", "runs/demo/fusion", "corpora/a", "corpora/b", "notebooks"):
        (tmp_path / "project" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_a_path_that_exists_is_left_as_it_is(project):
    assert paths.find("runs/demo/features", "runs/demo/fusion") == "runs/demo/features"
    assert paths.find(str(project / "corpora/a"), "runs/demo/fusion") == str(project / "corpora/a")
    assert paths.find("gs://bucket/data", "runs/demo/fusion") == "gs://bucket/data"
    assert paths.find("nowhere/at/all", "runs/demo/fusion") == "nowhere/at/all"
    assert paths.find("", "runs/demo/fusion") == ""


def test_a_run_without_recorded_places_finds_what_is_beside_its_parents(project, monkeypatch):
    monkeypatch.chdir("notebooks")
    assert paths.find("runs/demo/features", "../runs/demo/fusion") == str(project / "runs/demo/features")
    shutil.move(project / "runs", project.parent / "runs")
    assert paths.find("runs/demo/features", project.parent / "runs/demo/fusion") == str(
        project.parent / "runs/demo/features"
    )


@pytest.mark.parametrize("absolute", [False, True])
def test_what_moved_together_is_found(absolute, project, monkeypatch):
    recorded = str(project / "corpora/a") if absolute else "corpora/a"
    paths.record("runs/demo/fusion", {recorded: recorded})
    moved = project.parent / "moved"
    shutil.move(project, moved)
    monkeypatch.chdir(project.parent)
    assert paths.find(recorded, "moved/runs/demo/fusion") == str(moved / "corpora/a")


def test_another_project_in_the_current_folder_is_not_mistaken_for_the_runs_own(project, tmp_path, monkeypatch):
    paths.record("runs/demo/fusion", {"corpora/a": "corpora/a"})
    (tmp_path / "other" / "corpora/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other")
    assert paths.find("corpora/a", project / "runs/demo/fusion") == str(project / "corpora/a")


def test_every_data_set_of_a_mixture_is_found_and_keeps_its_weight(project, monkeypatch):
    monkeypatch.chdir("notebooks")
    a, b = project / "corpora/a", project / "corpora/b"
    assert paths.find_data("corpora/a:0.3,corpora/b", project / "runs/demo/fusion") == f"{a}:0.3,{b}:1.0"


def test_a_config_is_located_as_a_whole_and_its_file_stays_as_it_is(project, monkeypatch):
    fields = {"data": {"faces": "corpora/a:2,corpora/b", "features": "runs/demo/features", "delay": 1.0}}
    config = ConfigDict({**fields, "teacher": "runs/demo/features", "model": {"init_from": "corpora/b", "name": "x"}})
    run_folder.prepare_workdir(config, "run")
    text = (project / "run/config.json").read_text()
    shutil.move(project, project.parent / "moved")
    monkeypatch.chdir("/")
    moved = project.parent / "moved"
    found = run_folder.config_of(moved / "run")
    assert found.data.faces == f"{moved}/corpora/a:2.0,{moved}/corpora/b:1.0"
    assert found.data.features == found.teacher == str(moved / "runs/demo/features")
    assert found.model.init_from == str(moved / "corpora/b")
    assert (found.data.delay, found.model.name) == (1.0, "x")
    assert (moved / "run/config.json").read_text() == text


def test_a_fusion_run_that_moved_with_its_encoders_features_and_clips_opens_from_anywhere(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    tiny_runs.visual(home / "eyes/run")
    tiny_runs.audio(home / "ears/run")
    (home / "clips").mkdir()
    shutil.move(toy.clips(tmp_path / "made", train=1, dev=1, frames=4, segments=1), home / "clips/toy")
    features = extract.extract(("eyes/run", "ears/run"), "clips/toy", "features", progress=False)
    tiny_runs.fusion(home / "run", "eyes/run", "ears/run")
    (home / "run/encoders.json").unlink()
    recorded_encoders.record("run", features)
    shutil.move(home, tmp_path / "away")
    monkeypatch.chdir("/")
    away = tmp_path / "away"
    found = recorded_encoders.resolve(away / "run", checkpoints.load(away / "run")[0])
    assert (found.visual, found.audio) == (str(away / "eyes/run"), str(away / "ears/run"))
    # Without `encoders.json`, the features say where their encoders and clips are.
    (away / "run/encoders.json").unlink()
    config = ConfigDict({"data": {"features": str(away / "features")}})
    assert "faces" in recorded_encoders.describe(away / "features")
    assert recorded_encoders.resolve(away / "run", config).faces == found.faces


def test_damaged_places_are_one_clear_error(project):
    (project / "runs/demo/fusion/paths.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"paths\.json cannot be read"):
        paths.find("corpora/a", "runs/demo/fusion")
