import ast
import json
import pathlib
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from ml_collections import ConfigDict

import avemo
from avemo import analysis, metrics
from avemo.ops import attention
from helpers import tiny_runs, toy
from media import records
from media.errors import UserError

NOTEBOOK = pathlib.Path(__file__).parents[3] / "notebooks/analysis.ipynb"
FPS, FRAMES = 25.0, 120


def edit(path, **fields):
    config = json.loads((path / "config.json").read_text())
    config["data"].update(fields)
    (path / "config.json").write_text(json.dumps(config))


def log(path, metric, task):
    lines = [
        {"step": s, "split": n, "wall_time": 0.0, "loss": 1 / (s + 1), metric: s / 9}
        for s in range(9)
        for n in ("train", "dev")
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = list(records.CLASSES)
    (path / "result.json").write_text(
        json.dumps({"task": task, "step": 9, "metrics": {"dev": {metric: 1.0}}, "class_names": names})
    )


def save(path, **arrays):
    (path / "predictions").mkdir(exist_ok=True)
    np.savez(path / "predictions/dev.npz", **arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run folders as the demo leaves them, with invented predictions: gold half a second late, and wrong at 2 s."""
    folder = tmp_path_factory.mktemp("runs")
    faces, clips = toy.faces(folder / "data", dev=24), toy.clips(folder / "data", train=1, dev=4)
    rng = np.random.default_rng(0)
    student, audio = folder / "student", folder / "audio"
    tiny_runs.visual(student, num_classes=8)
    tiny_runs.audio(audio)
    edit(student, faces=faces)
    log(student, "accuracy", "student")
    label = np.arange(24) % 8
    probability = rng.dirichlet(np.ones(8), 24) + 0.7 * np.eye(8)[label]
    save(
        student,
        label=label,
        probability=probability / probability.sum(1, keepdims=True),
        embedding=rng.normal(size=(24, 32)),
    )

    time = np.arange(FRAMES) / FPS
    names = [f"dev{i}" for i in range(4)]
    gold = np.stack([0.8 * np.sin([[2 * time + i], [3 * time + 2 * i]])[:, 0].T for i in range(4)])
    rows = [
        {
            "recording": name,
            "subject": name,
            "fps": FPS,
            "time": time.astype(np.float32),
            "visual": rng.normal(size=(FRAMES, 128)).astype(np.float32),
            "visual_mask": (time < 0.9) | (time > 1.5),
            "audio": rng.normal(size=(FRAMES, 16)).astype(np.float32),
            "audio_mask": np.ones(FRAMES, bool),
            "targets": gold[i].astype(np.float32),
            "target_mask": np.ones(FRAMES, bool),
            "raters": np.full((FRAMES, 1, 2), np.nan, np.float32),
            "label": -1,
        }
        for i, name in enumerate(names)
    ]
    features = toy.write(folder / "data", "features", records.extracted_features(128, 16), {"dev": rows})
    (pathlib.Path(features) / "extract.json").write_text(json.dumps({"clips": clips}))
    for name, noise, fusion in (
        ("fusion", 0.02, "gmu"),
        ("fusion_audio", 0.3, "audio"),
        ("fusion_visual", 0.4, "visual"),
    ):
        tiny_runs.fusion(folder / name, str(student), str(audio), fusion=fusion)
        edit(folder / name, features=features)
        log(folder / name, "ccc_mean", "audiovisual")
        late = np.concatenate([np.repeat(gold[:, :1], 12, 1), gold[:, :-12]], 1) + noise * rng.normal(size=gold.shape)
        late[1, 50:60] += 1.5
        gates = np.stack([np.full(FRAMES, 0.3), np.full(FRAMES, 0.7)], -1)
        save(
            folder / name,
            recording=np.array(names),
            length=np.full(4, FRAMES),
            time=np.tile(time, 4),
            prediction=late.reshape(-1, 2),
            target=gold.reshape(-1, 2),
            mask=np.ones(4 * FRAMES, bool),
            visual_mask=np.tile(rows[0]["visual_mask"], 4),
            audio_mask=np.ones(4 * FRAMES, bool),
            gates=np.tile(gates, (4, 1)),
        )
    return folder


@pytest.fixture(scope="module")
def fusion(folder):
    return avemo.load(folder / "fusion")


@pytest.fixture(scope="module")
def student(folder):
    return avemo.load(folder / "student")


def test_a_run_as_tables(fusion):
    assert fusion.fields().loc["model.fusion", "value"] == "gmu"
    curves = fusion.curves("dev")
    assert curves.loc[("dev", 8), "loss"] == pytest.approx(1 / 9)
    assert fusion.metrics().loc["ccc_mean", "dev"] == 1
    assert set(fusion.variables()) == {"params", "constants"}
    with pytest.raises(UserError, match="not a run folder"):
        avemo.load(fusion.folder.parent / "data")


def test_tables_find_what_was_put_there(fusion, student):
    worst = analysis.worst_windows(fusion, seconds=0.4, count=3)
    assert worst.loc[0, "recording"] == "dev1"
    assert worst.loc[0, "begin"] == pytest.approx(2.0, abs=0.1)
    assert not ((worst["begin"] < 2.3) & (worst["begin"] > 1.7) & (worst["recording"] == "dev1")).iloc[1:].any()
    delay = analysis.delay_curve(fusion)
    assert delay["valence"].idxmax() == pytest.approx(-0.5)
    assert delay["arousal"].idxmax() == pytest.approx(-0.5)
    table = analysis.recordings(fusion)
    assert len(table) == 4
    assert table["face"].iloc[0] == pytest.approx(105 / 120, abs=0.01)
    confusion = analysis.confusion(student)
    assert confusion.to_numpy().sum() == 24
    assert list(confusion.index) == list(records.CLASSES)
    assert analysis.calibration(student)["count"].sum() == 24
    with pytest.raises(UserError, match="no rated traces"):
        analysis.worst_windows(student)
    with pytest.raises(UserError, match="predicts traces"):
        analysis.confusion(fusion)


def test_speakers_pool_their_recordings(fusion, student):
    by_name = analysis.speakers(fusion)
    assert set(by_name.index) == {f"dev{i}" for i in range(4)}  # the features name them
    pooled = analysis.speakers(fusion, speaker=lambda name: "ab"[int(name[-1]) // 2])
    traces = {t.recording: t for t in fusion.traces("dev")}
    for name, members in (("a", ("dev0", "dev1")), ("b", ("dev2", "dev3"))):
        stacked = [np.concatenate([getattr(traces[m], k) for m in members]) for k in ("prediction", "target")]
        assert pooled.loc[name, "ccc_valence"] == pytest.approx(metrics.ccc(metrics.trace_moments(*stacked))[0])
        assert pooled.loc[name, "recordings"] == 2
    assert pooled["ccc_valence"].is_monotonic_increasing
    halves = analysis.speakers(student, speaker=lambda row: "even" if int(row) % 2 == 0 else "odd")
    label, probability, _ = student.classes("dev")
    assert halves.loc["odd", "accuracy"] == pytest.approx((probability.argmax(-1) == label)[1::2].mean())


def test_attention_is_what_the_network_attends_to(folder, tmp_path, monkeypatch):
    data = json.loads((folder / "fusion/config.json").read_text())["data"]["features"]
    sizes = {"features": 8, "num_heads": 2}
    blocks = {"fusion": "cross_attention", "fusion_args": sizes, "temporal": "transformer"}
    blocks["temporal_args"] = {**sizes, "causal": True, "num_layers": 1}
    tiny_runs.fusion(tmp_path / "run", str(folder / "student"), str(folder / "audio"), **blocks)
    edit(tmp_path / "run", features=data)
    run = avemo.load(tmp_path / "run")
    used = []
    exponentials = attention.masked_exp

    def watch(*inputs):
        weights, total = exponentials(*inputs)
        used.append(weights / jnp.broadcast_to(total, weights.shape))
        return weights, total

    monkeypatch.setattr(attention, "masked_exp", watch)
    found = analysis.attention(run, "dev1", seconds=2.0)
    assert list(found) == ["fusion/audio_0", "fusion/visual_0", "temporal/layer_0"]
    actual = [weights for weights in used if not isinstance(weights, jax.core.Tracer)][::2]  # then the analysis's own
    for weights, expected in zip(found.values(), actual, strict=True):
        assert weights.shape == (2, 50, 50)
        np.testing.assert_allclose(weights, expected[0], atol=1e-6)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    seen = analysis.features_of(run, "dev1").visual_mask[:50]
    assert not found["fusion/audio_0"][:, :, ~seen].any()  # audio attends to no frame without a face
    assert not np.triu(found["temporal/layer_0"], 1).any()
    assert len(analysis.plot_attention(run, "dev1", seconds=2.0).axes) == 4
    assert analysis.plot_attention(avemo.load(folder / "fusion")) is None


@pytest.mark.slow
def test_umap_keeps_clusters_apart():
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(20, 6)) + 20 * i for i in range(3)]).astype(np.float32)
    flat = analysis.project(points, "umap")
    centres = np.stack([flat[20 * i : 20 * i + 20].mean(0) for i in range(3)])
    nearest = np.linalg.norm(flat[:, None] - centres, axis=-1).argmin(1)
    np.testing.assert_array_equal(nearest, np.repeat(np.arange(3), 20))


def test_nearest_and_projection():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 6)) * [9, 5, 1, 1, 1, 1]
    flat = analysis.project(points)
    assert abs(np.corrcoef(flat[:, 0], points[:, 0])[0, 1]) > 0.98
    order = analysis.nearest(points, 3, 39)
    assert 3 not in order
    assert (np.diff(np.linalg.norm(points[order] - points[3], axis=1)) >= 0).all()


def test_integrated_gradients_add_up_to_the_logits_rise(student, monkeypatch):
    weight = np.random.default_rng(0).normal(size=(6, 6, 3, 4)).astype(np.float32)

    class Quadratic:  # the midpoint rule is exact for its gradient
        def apply(self, variables, images, train):
            return {"logits": jnp.einsum("bhwc,hwck->bk", (images / 255) ** 2, variables)}

    monkeypatch.setattr(analysis.explain, "open_run", lambda *_: (ConfigDict({"model": {}}), jnp.asarray(weight)))
    monkeypatch.setattr(analysis.explain.expression, "build", lambda _: Quadratic())
    image = np.random.default_rng(1).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    logits = np.einsum("hwc,hwck->k", (image / 255.0) ** 2, weight)
    attribution, label = analysis.integrated_gradients(student, image, steps=4)
    assert label == logits.argmax()
    rise = logits - np.einsum("hwck->k", weight) / 4
    assert attribution.sum() == pytest.approx(rise[label], rel=1e-4)
    # A pixel's own share, by hand.
    share = ((image / 255.0) ** 2 - 0.25) * weight[..., label]
    np.testing.assert_allclose(attribution, share.sum(-1), atol=1e-4)


def test_occlusion_moves_the_trace_only_of_a_modality_that_is_there(fusion):
    time, change = analysis.occlusion(fusion, "visual", "dev2", width=0.5)
    assert time.shape == (10,)
    assert (change[:2] > 1e-4).all()
    hidden = (time > 1.0) & (time < 1.5)
    assert (change[hidden] < 1e-6).all()  # without a face there is nothing to occlude
    with pytest.raises(UserError, match="modality"):
        analysis.occlusion(fusion, "smell")


def test_the_sound_of_a_spectrogram_has_its_pitch():
    from media import audio

    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    sound = analysis.sound_of(audio.log_mel(tone))
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum.argmax() * 16000 / len(sound) == pytest.approx(1000, abs=60)


def test_the_first_cell_installs_from_the_repository(monkeypatch):
    cell = next(c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code")
    commands = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    monkeypatch.chdir(NOTEBOOK.parent)
    exec("".join(cell["source"]), {})
    (command,) = commands
    assert command[1:5] == ["-m", "pip", "install", "-q"]
    assert (pathlib.Path(command[5]) / "pyproject.toml").exists()


@pytest.fixture
def notebooks(folder, tmp_path):
    """`notebooks/` of a project whose runs `make demo` made: every path is relative to the project."""
    shutil.copytree(folder, tmp_path / "runs/demo")
    for name in ("config.json", "encoders.json", "extract.json"):
        for path in (tmp_path / "runs/demo").rglob(name):
            path.write_text(path.read_text().replace(str(folder), "runs/demo"))
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


@pytest.mark.portable
def test_the_notebook_runs_from_top_to_bottom_where_it_lies(notebooks, monkeypatch):
    """Runs every code cell in order, as Jupyter does, with a stand-in for IPython's display."""
    monkeypatch.chdir(notebooks)
    shown = []
    display = types.ModuleType("IPython.display")
    display.HTML = display.Audio = lambda data, **_: data
    display.display = lambda *things: shown.extend(things)
    shell = types.ModuleType("IPython")
    shell.display, shell.version_info, shell.get_ipython = display, (9, 0), lambda: None
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.delenv("AVEMO_RUNS", raising=False)
    names: dict = {}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        assert not cell.get("outputs")  # no output made from data is committed
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, f"cell {number}", "exec"), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names))
    figures = [thing for thing in shown if isinstance(thing, Figure)]
    assert len(figures) >= 15
    for figure in figures:
        figure.canvas.draw()
        assert figure.axes
