"""A run that has left its machine: one file, no corpora, another working directory."""

import json
import pathlib
import shutil
import stat
import zipfile

import numpy as np
import pytest
from matplotlib.figure import Figure

import avemo
import launch
from avemo import analysis
from avemo.release import travel
from avemo.runs import checkpoints
from helpers import buckets, fabricated, sequences, tiny_runs, toy
from media.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A student and a fusion with log, scores and predictions, beside the data that they name."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    student, audio = tiny_runs.visual(folder / "student", num_classes=8), tiny_runs.audio(folder / "audio")
    tiny_runs.fusion(folder / "fusion", student, audio, dims={"visual": 12, "audio": 10})
    roles = {
        "student": {"faces": toy.faces(folder / "data", dev=16)},
        "fusion": {"features": str(sequences.write_features(folder / "data", frames=(40, 9)))},
    }
    label = np.arange(16) % 8
    arrays = {
        "student": {"label": label, "probability": rng.dirichlet(np.ones(8), 16)},
        "fusion": fabricated.traces(rng, 2, 300, (0.5, 0.5), gates=True),
    }
    for name, data in roles.items():
        config = json.loads((folder / name / "config.json").read_text())
        config["data"] |= data
        (folder / name / "config.json").write_text(json.dumps(config))
        (folder / name / "predictions").mkdir()
        np.savez(folder / name / "predictions/dev.npz", **arrays[name])
        lines = [{"step": s, "split": "dev", "wall_time": 0.0, "loss": 1 / s} for s in (1, 2)]
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def abroad(tmp_path, monkeypatch):
    """Another machine: an empty working directory and an empty cache."""
    place = tmp_path / "abroad"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("AVEMO_CACHE", str(tmp_path / "cache"))
    return place


@pytest.fixture(scope="module")
def packed(home, tmp_path_factory):
    """The runs' files, made before their folder is taken away."""
    out = tmp_path_factory.mktemp("packed")
    for name in ("student", "fusion"):
        assert launch.main(["pack", f"--workdir={home / name}", f"--output={out / name}.zip"]) == 0
    return out


@pytest.fixture
def moved(home, packed, abroad):
    """The packed runs where nothing else is."""
    for name in ("student", "fusion"):
        shutil.copy(packed / f"{name}.zip", abroad)
    gone = home.with_name("gone")
    home.rename(gone)
    yield abroad
    gone.rename(home)


def test_tables_and_pictures_need_only_the_file(home, moved):
    fusion, student = avemo.load("fusion.zip"), avemo.load(moved / "student.zip")
    assert (fusion.name, student.name) == ("fusion", "student")
    assert fusion.fields().loc["model.fusion", "value"] == "gmu"
    assert len(fusion.curves("dev")) == 2
    assert len(analysis.recordings(fusion)) == 2
    assert len(analysis.speakers(fusion, speaker=lambda name: name[:3])) == 1
    assert len(analysis.worst_windows(fusion, seconds=2.0, count=2)) == 2
    assert not analysis.delay_curve(fusion).empty
    assert not analysis.compare(fusion, fusion).empty
    assert analysis.confusion(student).to_numpy().sum() == 16
    pictures = [analysis.plot_curves(fusion), analysis.plot_trace(fusion), analysis.plot_gates(fusion)]
    pictures += [analysis.plot_delay(fusion), analysis.plot_confusion(student), analysis.plot_calibration(student)]
    assert all(isinstance(picture, Figure) for picture in pictures)
    assert pictures[0]._repr_png_().startswith(b"\x89PNG")  # how a notebook asks for a picture
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    attribution, _ = analysis.integrated_gradients(student, image, target=1, steps=1)
    assert attribution.shape == (32, 32)


@pytest.mark.parametrize(
    ("role", "ask"),
    [
        ("features", lambda fusion, _: analysis.occlusion(fusion, "audio")),
        ("features", lambda fusion, _: analysis.features_of(fusion)),
        ("features", lambda fusion, _: analysis.clip_window(fusion, "dev_1", 0, 1)),
        ("features", lambda fusion, _: analysis.speakers(fusion)),
        ("faces", lambda _, student: analysis.faces(student)),
    ],
)
def test_what_needs_the_corpora_says_so_in_a_line(role, ask, moved):
    runs = avemo.load("fusion.zip"), avemo.load("student.zip")
    with pytest.raises(UserError, match=f"the {role} of .* are not at .*: they moved") as raised:
        ask(*runs)
    assert "\n" not in str(raised.value)


def test_the_weights_are_those_of_the_run(home, packed, abroad):
    for name in ("student", "fusion"):
        _, step, expected = checkpoints.load(home / name)
        got = avemo.load(packed / f"{name}.zip")
        assert checkpoints.load(got.folder)[1] == step
        for (path, x), y in zip(flat(expected), flat(got.variables()), strict=True):
            np.testing.assert_array_equal(x, y[1], err_msg=str(path))


def flat(tree):
    import jax

    return jax.tree_util.tree_leaves_with_path(tree)


def test_any_zip_of_a_run_folder_opens_and_so_does_one_in_a_bucket(home, abroad, monkeypatch):
    archive = shutil.make_archive(str(abroad / "by_hand"), "zip", home.parent, f"{home.name}/student")
    run = avemo.load(archive)
    assert run.splits == ("dev",)
    for (path, x), y in zip(flat(checkpoints.load(home / "student")[2]), flat(run.variables()), strict=True):
        np.testing.assert_array_equal(x, y[1], err_msg=str(path))
    bucket = buckets.install(monkeypatch)
    bucket.pipe("gs://bucket/student.zip", pathlib.Path(archive).read_bytes())
    assert avemo.load("gs://bucket/student.zip").folder == run.folder


def test_a_file_is_unpacked_once_and_a_packed_run_can_be_packed(packed, abroad):
    first = avemo.load(packed / "student.zip")
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path(first.folder).rglob("*")}
    again = avemo.load(packed / "student.zip")
    assert {p: p.stat().st_mtime_ns for p in pathlib.Path(again.folder).rglob("*")} == before
    assert travel.pack(str(packed / "student.zip"), "again.zip")["splits"] == ["dev"]
    assert avemo.load("again.zip").metrics().equals(first.metrics())


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"run/metrics.jsonl": b""}, "holds no run folder"),
        ({"a/config.json": b"{}", "b/config.json": b"{}"}, r"holds several runs \(a, b\)"),
        ({"../config.json": b"{}"}, "leads out of its folder"),
        ({"/config.json": b"{}"}, "leads out of its folder"),
        ({link("run/config.json"): b"/etc/passwd"}, "not a plain file"),
        ({"run/config.json": bytes(257 << 20)}, "unpacks to far more than it is"),
    ],
    ids=["no run", "two runs", "upwards", "absolute", "link", "bomb"],
)
def test_a_zip_that_is_no_run_is_refused(files, says, abroad, tmp_path):
    path = zip_of(abroad / "x.zip", files)
    with pytest.raises(UserError, match=says):
        avemo.load(path)
    assert not (tmp_path / "config.json").exists()


def test_a_damaged_or_missing_file_and_a_cache_that_cannot_be_written(packed, abroad, monkeypatch):
    with pytest.raises(UserError, match=r"none\.zip does not exist"):
        avemo.load("none.zip")
    whole = (packed / "student.zip").read_bytes()
    for end in range(100, len(whole), len(whole) // 7):
        (abroad / "cut.zip").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.zip (is damaged or not a zip file|.* or was cut short)"):
            avemo.load("cut.zip")
    monkeypatch.setenv("AVEMO_CACHE", "/proc/nowhere")
    with pytest.raises(UserError, match="set AVEMO_CACHE to another folder"):
        avemo.load(packed / "student.zip")


def test_a_run_that_cannot_be_packed(home, abroad, capsys):
    assert launch.main(["pack", f"--workdir={home / 'student'}", "--output=run.tar"]) == 2
    assert "a packed run is a file NAME.zip" in capsys.readouterr().err
    assert launch.main(["pack", f"--workdir={abroad}", "--output=run.zip"]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert not list(abroad.iterdir())
    (abroad / "run.zip").mkdir()
    (abroad / "file").write_text("")
    for output, says in (
        ("gs://bucket/run.zip", "write the file to a local disk"),
        ("run.zip", "it is a folder, or lies below a file"),
        ("file/run.zip", "it is a folder, or lies below a file"),
    ):
        assert launch.main(["pack", f"--workdir={home / 'student'}", f"--output={output}"]) == 2
        assert says in capsys.readouterr().err
