import functools
import hashlib
import http.server
import io
import json
import pathlib
import shutil
import threading
import zipfile

import numpy as np
import pytest

import avemo
import launch
from avemo import configuration, predict
from avemo.evaluation import evaluate
from avemo.predict import open_models
from avemo.release import install, pack
from avemo.runs import archive, checkpoints, installed
from avemo.runs.weights import fingerprint
from helpers import films, tiny_runs, toy
from media.errors import UserError

SCORES = {"dev": {"accuracy": 0.61237, "ece": 0.0471}, "test": {"accuracy": 0.58891, "ece": None}}
LICENCES = {"faces": "votes MIT; pictures for research", "clips": "CC BY-NC-SA 4.0", "own": "CC BY 4.0"}


def data_set(folder, name):
    """The files of a prepared data set that a release reads: enough to recognise it, and its card."""
    folder.mkdir(parents=True)
    (folder / "features.json").write_text("{}")
    splits = {"dev": {"counts": {"records": 7}}, "train": {"counts": {"records": 40}, "subjects": 12}}
    card = {"corpus": name, "title": f"Corpus of {name}", "licence": LICENCES[name], "splits": splits}
    (folder / "card.json").write_text(json.dumps(card))
    return str(folder)


def finish(run, *, data=None, **fields):
    """Turns a tiny run into one that was trained on `data` and scored."""
    folder = pathlib.Path(run)
    config = json.loads((folder / "config.json").read_text())
    config.update(fields, best_metric="dev/accuracy")
    config["data"].update(data or {})
    (folder / "config.json").write_text(json.dumps(config))
    result = json.loads((folder / "result.json").read_text())
    result |= {"evaluated_step": 1, "metrics": SCORES, "parameters": 12345, "task": config["task"]}
    (folder / "result.json").write_text(json.dumps(result))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    faces, clips = (data_set(folder / "data" / name, name) for name in ("faces", "clips"))
    weights = folder / "weights"
    weights.mkdir()
    provenance = {
        "network": "net",
        "source_file": "net.bin",
        "sha256": 64 * "a",
        "licence": "trained on X, research only",
    }
    (weights / "provenance.json").write_text(json.dumps(provenance))
    teacher = finish(tiny_runs.visual(folder / "teacher", seed=5), task="teacher", data={"faces": faces})
    config = json.loads((folder / "teacher/config.json").read_text())
    config["model"]["init_from"] = str(weights)
    (folder / "teacher/config.json").write_text(json.dumps(config))
    student = finish(tiny_runs.visual(folder / "student"), teacher=teacher, data={"faces": faces})
    speech = finish(tiny_runs.audio(folder / "speech"), data={"clips": clips})
    detector = folder / "detector.onnx"
    detector.write_bytes(b"weights of a detector")
    seen = {**films.FACES, "detector_model": str(detector)}
    fusion = tiny_runs.fusion(folder / "fusion", student, speech, seen)
    features = folder / "data" / "features"
    features.mkdir()
    (features / "features.json").write_text("{}")
    (features / "extract.json").write_text(json.dumps({"clips": clips}))
    finish(fusion, data={"features": str(features)})
    return {"student": student, "speech": speech, "fusion": fusion, "teacher": teacher}


@pytest.fixture(scope="module")
def packed(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "tiny.zip"
    made = pack.pack(",".join(runs[n] for n in ("student", "speech", "fusion")), str(path))
    assert made["bytes"] == path.stat().st_size
    return path


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("AVEMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(files):
    """The bytes of a zip file of `files`, whatever the manifest says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return buffer.getvalue()


def test_a_prediction_by_name_is_that_of_the_folder(runs, packed, empty, tmp_path, monkeypatch):
    clip = films.film(tmp_path / "a.mp4", seconds=1.0, squares=[films.still()], sound=1.0)
    expected = predict.predict(runs["fusion"], str(clip), str(tmp_path / "folder"), files=("csv",))
    found = install.install(str(packed))
    assert found["runs"] == ["tiny/fusion", "tiny/speech", "tiny/student"]
    # A run in the current folder with the encoder's name is not mistaken for the encoder.
    tiny_runs.visual(tmp_path / "elsewhere" / "student", seed=9)
    monkeypatch.chdir(tmp_path / "elsewhere")
    got = predict.predict("fusion", str(clip), str(tmp_path / "name"), files=("csv",))
    assert got["faces"] == expected["faces"]
    assert (tmp_path / "name/trace.csv").read_bytes() == (tmp_path / "folder/trace.csv").read_bytes()
    models = open_models("fusion", audio="speech")
    assert models.faces.detector_model == str(empty / "tiny/fusion/detector.onnx")
    assert models.visual.fingerprint == fingerprint(checkpoints.load(runs["student"])[2])
    assert avemo.load("tiny/speech").result["metrics"] == SCORES


def test_the_weights_are_those_that_are_evaluated(runs, packed, empty):
    install.install(str(packed))
    for name in ("student", "speech", "fusion"):
        _, step, variables = checkpoints.load(installed.find(name))
        _, expected_step, expected = checkpoints.load(runs[name])
        assert step == expected_step
        assert fingerprint(variables) == fingerprint(expected)
    files = contents(packed)
    assert {n.split("/")[1] for n in files if "/" in n} == {
        "config.json", "result.json", "weights.npz", "encoders.json", "detector.onnx"
    }  # fmt: skip


def test_the_same_runs_give_the_same_bytes(runs, packed, tmp_path):
    again = tmp_path / "tiny.zip"
    pack.pack(runs["fusion"] + "/", str(again))  # includes its encoders
    assert again.read_bytes() == packed.read_bytes()
    assert str(pathlib.Path(runs["fusion"]).parent).encode() not in packed.read_bytes()


def test_the_card_is_made_of_the_runs(runs, packed):
    text = contents(packed)["MODEL_CARD.md"].decode()
    sections = dict(part.split("\n", 1) for part in text.split("\n## "))
    student, fusion = sections["`student`"], sections["`fusion`"]
    assert "| score | dev (chose the checkpoint) | test |" in student
    assert "| accuracy | 0.6124 | 0.5889 |" in student
    assert "| ece | 0.0471 |  |" in student
    assert "12,345 parameters" in student
    assert "step 1 of 1, the best by `dev/accuracy`" in student
    assert "train 40 records of 12 subjects; dev 7 records" in student
    assert f"| Corpus of faces | faces of its teacher | {LICENCES['faces']} |" in student
    assert "| net (net.bin) | initial weights of its teacher | trained on X, research only |" in student
    assert "| Corpus of clips | clips | CC BY-NC-SA 4.0 |" in fusion
    assert "Its visual encoder is `student`. Its audio encoder is `speech`." in fusion
    assert "- Corpus of clips: **CC BY-NC-SA 4.0**. (`fusion`, `speech`)" in sections["Licences"]
    assert text.count("| **no** |") == 3
    assert "--workdir=fusion" in sections["How to use it"]


def test_a_licence_that_bars_nothing_is_not_said_to(tmp_path):
    run = finish(tiny_runs.audio(tmp_path / "free"), data={"clips": data_set(tmp_path / "own", "own")})
    pack.pack(run, str(tmp_path / "free.zip"))
    assert "| see its sources |" in contents(tmp_path / "free.zip")["MODEL_CARD.md"].decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--workdir=nobody", "--input=a.mp4", "--output=o"],
        ["evaluate", "--workdir=nobody"],
        ["extract", "--workdir=nobody", "--data=d", "--output=o"],
        ["export", "--workdir=nobody", "--output=o"],
    ],
)
def test_a_name_that_is_not_there_says_how_to_get_it(arguments, packed, empty, capsys):
    assert launch.main(arguments) == 2
    first, line = capsys.readouterr().err.split("\n", 1)
    assert first.startswith("on ")  # what the command runs on
    assert f"nobody is not a run folder, and no release with a run of this name is installed in {empty}" in line
    assert "(nothing is installed)" in line
    assert "`make release`" in line
    assert "launch.py release --install=FILE.zip" in line
    assert line.count("\n") == 1
    install.install(str(packed))
    assert launch.main(arguments) == 2
    assert "installed: tiny/fusion, tiny/speech, tiny/student" in capsys.readouterr().err


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("AVEMO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert installed.folder() == pathlib.Path("/x/avemo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert installed.folder() == pathlib.Path.home() / ".cache/avemo"


def test_a_trace_names_its_run_without_the_folders_of_this_machine(empty):
    assert installed.shown(f"{empty}/tiny/fusion,/home/me/secret/run") == "tiny/fusion,run"
    assert installed.shown("runs/demo/fusion") == "runs/demo/fusion"
    assert installed.shown("../../me/run") == "run"


def test_names_in_two_releases_and_a_newer_one(packed, empty, tmp_path):
    second = tmp_path / "second.zip"
    shutil.copy(packed, second)
    install.install(str(packed))
    (empty / "tiny/left_over").write_text("")
    install.install(str(packed))  # replaces what is there
    assert not (empty / "tiny/left_over").exists()
    assert sorted(p.name for p in empty.iterdir()) == ["tiny"]
    install.install(str(second))
    with pytest.raises(UserError, match="several installed releases: name one of second/fusion, tiny/fusion"):
        installed.find("fusion")
    assert installed.find("second/fusion,tiny/fusion") == f"{empty}/second/fusion,{empty}/tiny/fusion"


def test_a_folder_comes_before_a_name(runs, packed, empty, monkeypatch):
    install.install(str(packed))
    monkeypatch.chdir(pathlib.Path(runs["fusion"]).parent)
    assert installed.find("fusion") == "fusion"
    assert installed.find("./nowhere/at/all") == "./nowhere/at/all"
    assert installed.find("gs://bucket/run") == "gs://bucket/run"


def damaged(files, how):
    manifest = json.loads(files["manifest.json"])

    def declared(name, data):
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        changed = {**manifest, "files": {**manifest["files"], name: entry}}
        return rewritten({**files, name: data, "manifest.json": json.dumps(changed)})

    changed = bytearray(files["student/weights.npz"])
    changed[len(changed) // 2] ^= 1
    return {
        "not a zip": lambda: b"hello",
        "cut short": lambda: rewritten(files)[:-2000],
        "a byte": lambda: rewritten({**files, "student/weights.npz": bytes(changed)}),
        "missing": lambda: rewritten({n: d for n, d in files.items() if n != "student/weights.npz"}),
        "undeclared": lambda: rewritten({**files, "student/encoders.json": b""}),
        "no manifest": lambda: rewritten({n: d for n, d in files.items() if n != "manifest.json"}),
        "other format": lambda: rewritten({**files, "manifest.json": json.dumps({**manifest, "format": 9})}),
        "manifest of another kind": lambda: rewritten({**files, "manifest.json": "[]"}),
        "upwards": lambda: declared("../outside.txt", b"x"),
        "absolute": lambda: declared("/tmp/outside.txt", b"x"),
        "backslash": lambda: declared("..\\outside.txt", b"x"),
        "compiled": lambda: declared("fusion/compilation_cache/jit_step-cache", b"machine code"),
        "code": lambda: declared("fusion/loader.py", b"print()"),
        "checkpoint": lambda: declared("student/checkpoints/1/state/_METADATA", b"{}"),
        "folder": lambda: declared("fusion/checkpoints/", b""),
    }[how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("not a zip", "damaged or not a release"),
        ("cut short", "damaged or not a release"),
        ("a byte", "student/weights.npz does not match its manifest"),
        ("missing", "student/weights.npz does not match its manifest"),
        ("undeclared", "student/encoders.json does not match its manifest"),
        ("no manifest", "not a release of avemo"),
        ("other format", "is of format 9, but this version reads 1"),
        ("manifest of another kind", "damaged or not a release"),
        ("upwards", "leads out of its folder"),
        ("absolute", "leads out of its folder"),
        ("backslash", "leads out of its folder"),
        ("compiled", "holds 'fusion/compilation_cache/jit_step-cache', which no release has: do not trust it"),
        ("code", "holds 'fusion/loader.py', which no release has"),
        ("checkpoint", "which no release has"),
        ("folder", "leads out of its folder"),
    ],
)
def test_a_damaged_or_hostile_archive_installs_nothing(how, says, packed, empty, tmp_path):
    path = tmp_path / "bad.zip"
    path.write_bytes(damaged(contents(packed), how))
    with pytest.raises(UserError, match=says):
        install.install(str(path))
    assert not empty.exists()
    assert not (tmp_path / "outside.txt").exists()


def test_a_flipped_bit_of_the_archive_itself_is_found(packed, empty, tmp_path):
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(UserError, match="damaged or not a release"):
        install.install(str(tmp_path / "bad.zip"))


def test_an_install_that_fails_keeps_the_old_release(packed, empty, monkeypatch):
    install.install(str(packed))
    before = {p: p.read_bytes() for p in empty.rglob("*") if p.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"No space left on device.*AVEMO_CACHE"):
        install.install(str(packed))
    assert {p: p.read_bytes() for p in empty.rglob("*") if p.is_file()} == before


def test_a_release_has_a_largest_size(runs, packed, empty, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LIMIT", 50_000)
    with pytest.raises(UserError, match=r"more than the 0 MB of a release.*student/weights.npz"):
        pack.pack(runs["student"], str(tmp_path / "big.zip"))
    assert not list(tmp_path.glob("*big*"))
    with pytest.raises(UserError, match="larger than the 0 MB"):
        install.install(str(packed))


def test_an_archive_comes_from_an_address(packed, empty):
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(packed.parent))
    serve.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert "tiny/fusion" in install.install(f"{address}/tiny.zip")["runs"]
        with pytest.raises(UserError, match=r"cannot be fetched .*404"):
            install.install(f"{address}/other.zip")
        server.shutdown()


def test_runs_that_cannot_be_released(runs, tmp_path):
    out = str(tmp_path / "a.zip")
    faces = data_set(tmp_path / "faces", "faces")
    run = tiny_runs.audio(tmp_path / "run")
    with pytest.raises(UserError, match="has no metrics"):
        pack.pack(run, out)
    finish(run, data={"clips": faces})
    shutil.rmtree(faces)
    with pytest.raises(UserError, match=r"the clips of .* cannot be found.*licences"):
        pack.pack(run, out)
    result = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps({**result, "evaluated_step": 7}))
    with pytest.raises(UserError, match="scores step 7, but the best checkpoint is of step 1"):
        pack.pack(run, out)
    twin = finish(tiny_runs.audio(tmp_path / "twin" / "run"))
    finish(run, data={"clips": data_set(tmp_path / "faces", "faces")})
    with pytest.raises(UserError, match="have one name"):
        pack.pack(f"{run},{twin}", out)
    with pytest.raises(UserError, match=r"a release is a file NAME\.zip"):
        pack.pack(run, str(tmp_path / "a.rar"))
    assert not (tmp_path / "a.zip").exists()
    assert launch.main(["release", f"--workdir={run}"]) == 2


def test_data_that_changed_is_not_taken_for_what_the_run_learnt_from(tmp_path):
    run = finish(tiny_runs.audio(tmp_path / "run"), data={"clips": data_set(tmp_path / "own", "own")})
    result = json.loads((tmp_path / "run/result.json").read_text())
    (tmp_path / "run/result.json").write_text(json.dumps({**result, "data": {"clips": "another"}}))
    with pytest.raises(UserError, match="are not those it was trained on"):
        pack.pack(run, str(tmp_path / "a.zip"))


def test_a_released_student_is_scored_on_your_own_data(runs, empty, tmp_path):
    student = tiny_runs.visual(tmp_path / "eight", num_classes=8)
    data = data_set(tmp_path / "faces", "faces")
    fields = {"faces": data, "eval_batch": 8, "batch": {"faces": 8}, "threads": 1, "prefetch": 1}
    losses = configuration.load("configs/demo/student.py").loss.to_dict()
    needed = {"data": fields, "loss": losses, "parallel": "pmap", "eval_splits": []}
    finish(student, teacher=runs["teacher"], **needed)
    pack.pack(student, str(tmp_path / "a.zip"))
    install.install(str(tmp_path / "a.zip"))
    with pytest.raises(UserError, match="has no data with it: pass --data=SHARDS"):
        evaluate.evaluate("eight")
    scores = evaluate.evaluate("eight", toy.faces(tmp_path / "toy", train=8, dev=8), "dev")["dev"]
    assert np.isfinite(scores["accuracy"])
    assert "agreement" not in scores  # its teacher is not in the release
