"""The sweep: cells resume and merge, failures are rows, planted signals are found."""

import contextlib
import csv
import dataclasses
import json
import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from avemo import configuration
from avemo.metrics import significance
from avemo.runs import run_folder
from avemo.sweep import captions, figures, plan, runner, summary, tables
from avemo.training import seed_mesh, seeds_together
from helpers.sequences import write_features
from media.errors import UserError

COMMON = {
    "steps": 6,
    "log_every": 2,
    "eval_every": 2,
    "data.sequence_length": 20,
    "data.sequence_hop": 10,
    "data.delay": 0.08,
    "data.eval_batch": 8,
    "model.fusion_args.features": 8,
    "model.temporal_args.features": 8,
}
SWEEP = """
from avemo.sweep import plan

def get_config(variant=""):
    return plan.Sweep(
        title="Toy & co_mparison", experiment="configs/demo/fusion.py:smoke", common={common!r}, seeds=2,
        settings=plan.grid({{"model.fusion": {fusions!r}}}), reference="concat",
    )
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished sweep of three settings, one of which cannot work: (folder, sweep file, overrides, result)."""
    base = tmp_path_factory.mktemp("sweep")
    data = write_features(base)
    spec = base / "toy.py"
    spec.write_text(SWEEP.format(common=COMMON, fusions=("concat", "nonsense", "late")))
    overrides = [f"--config.data.features={data}"]
    return base / "out", str(spec), overrides, runner.run(str(spec), str(base / "out"), overrides)


def cells_of(made):
    folder, spec, overrides, _ = made
    return folder, [c for seeds in plan.cells(plan.load(spec, overrides)) for c in seeds[0]]


@pytest.mark.portable
def test_a_cell_is_a_run_folder_and_its_command_names_it(made):
    from avemo.evaluation import evaluate

    folder, cells = cells_of(made)
    result = json.loads((folder / cells[0].folder / "result.json").read_text())
    scored = evaluate.evaluate(str(folder / cells[0].folder))
    assert scored["test"] == pytest.approx(result["metrics"]["test"], abs=1e-5)
    words = shlex.split(cells[0].command(folder))
    assert words[:3] == ["python", "launch.py", "train"]
    spec = words[3].removeprefix("--config=")
    config = configuration.load(spec, words[5:])
    assert configuration.to_dict(config) == json.loads((folder / cells[0].folder / "config.json").read_text())
    # The same command finds the run finished.
    assert run_folder.finished(folder / cells[0].folder, config)["parameters"] == result["parameters"]


def test_a_finished_cell_is_not_trained_again_and_a_failed_one_is_a_row(made, monkeypatch, tmp_path):
    folder, spec, overrides, first = made
    assert first["finished"] == 4
    assert list(first["failed"]) == ["nonsense"]
    assert "fusion" in first["failed"]["nonsense"]
    assert "attention_pool" in first["failed"]["nonsense"]  # the known ones are listed

    def refuse(configs, workdirs):
        raise AssertionError("trained again")

    monkeypatch.setattr(seeds_together, "train_seeds", refuse)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("cells/*/*/result.json")}
    again = runner.run(spec, str(folder), overrides)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("cells/*/*/result.json")} == before
    assert again["finished"] == 4
    # The additional seed is trained, the finished ones are not.
    asked = {}

    def note(configs, _):
        asked[configs[0].model.fusion] = [c.seed for c in configs]
        return [None] * len(configs)

    monkeypatch.setattr(seeds_together, "train_seeds", note)
    runner.run(spec, shutil.copytree(folder, tmp_path / "more"), [*overrides, "--config.seeds=3"])
    assert asked == {"concat": [2], "nonsense": [0, 1, 2], "late": [2]}


def test_another_sweep_is_refused_a_workdir(made):
    folder, spec, overrides, _ = made
    with pytest.raises(UserError, match="choose another --workdir"):
        runner.run(spec, str(folder), [*overrides, "--config.steps=8"])


def test_shards_share_the_settings_and_merge(made, monkeypatch, tmp_path):
    folder, spec, overrides, whole = made
    done = {c.folder: folder / c.folder for c in cells_of(made)[1]}

    def copy(configs, workdirs):
        """Replaces training: copies the finished cells."""
        for target in workdirs:
            name = str(pathlib.Path(target).relative_to(tmp_path))
            if not (done[name] / "result.json").exists():
                raise UserError("unknown fusion")
            shutil.copytree(done[name], target)
        return [None] * len(configs)

    monkeypatch.setattr(seeds_together, "train_seeds", copy)
    one = runner.run(spec, str(tmp_path), overrides, "1/2")
    assert (one["finished"], one["pending"]) == (4, ["nonsense"])
    two = runner.run(spec, str(tmp_path), overrides, "2/2")
    assert (two["finished"], two["pending"], list(two["failed"])) == (4, [], ["nonsense"])
    numbers = [table_numbers(f / "table.csv") for f in (tmp_path, folder)]
    assert numbers[0] == numbers[1]
    for wrong in ("0/2", "3/2", "a/b", "2"):
        with pytest.raises(UserError, match="shard"):
            runner.run(spec, str(tmp_path), overrides, wrong)
    assert whole["settings"] == 3


def table_numbers(path):
    with open(path) as file:
        return [
            {k: r[k] for k in ("setting", "seeds", "main", "p_holm", "postprocessed")} for r in csv.DictReader(file)
        ]


def test_tables_hold_every_promised_number(made):
    folder, _, _, result = made
    rows = {r["setting"]: r for r in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    late = rows["late"]
    cells = [json.loads((folder / f / "result.json").read_text()) for f in late["folders"].split()]
    seeds = [c["metrics"]["test"]["ccc_mean"] for c in cells]
    assert float(late["main"]) == pytest.approx(np.mean(seeds), abs=1e-6)
    assert float(late["main_sd"]) == pytest.approx(np.std(seeds, ddof=1), abs=1e-6)
    second = [c["metrics"]["test"]["ccc_recording_mean"] for c in cells]
    assert float(late["second"]) == pytest.approx(np.mean(second), abs=1e-6)
    assert float(late["main_low"]) <= float(late["main"]) <= float(late["main_high"])
    assert float(late["difference"]) == pytest.approx(float(late["main"]) - float(rows["concat"]["main"]), abs=1e-9)
    assert float(late["p_holm"]) >= 2 / 2**4
    for column in ("audio_only", "visual_only", "postprocessed", "parameters", "flops_per_frame", "step_seconds"):
        assert np.isfinite(float(late[column]))
    assert rows["nonsense"]["error"]
    text = (folder / "table.md").read_text()
    assert "| [late](cells/late/seed_0) | 2/2 |" in text
    assert "**nonsense** failed" in text
    assert text.count("python launch.py train") == 3
    tex = (folder / "table.tex").read_text()
    assert r"Toy \& co\_mparison" in tex
    assert tex.count(r"\\") == 4  # the head and three rows
    assert all(path.startswith(str(folder)) for path in result["written"])
    page = (folder / "ablation.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "Toy &amp; co_mparison" in page
    assert "http" not in page  # opens without a network


@pytest.fixture
def compile_cache(tmp_path):
    """Compiles programs that differ only in their data once."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {n: getattr(jax.config, n) for n in names}
    jax.config.update(names[0], str(tmp_path / "cache"))
    jax.config.update(names[1], 0.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_planted_signals_are_ranked_correctly(tmp_path, compile_cache, monkeypatch):
    # Eight devices would spend most of the time waiting for one another.
    monkeypatch.setattr(seed_mesh, "mesh", lambda count: seed_mesh.of_devices(count, jax.devices()[:1]))
    kinds = ("audio", "visual", "both", "product")
    data = {kind: write_features(tmp_path / kind, kind, frames=160) for kind in kinds}
    sweep = plan.Sweep(
        title="Planted",
        experiment="configs/demo/fusion.py:smoke",
        common={
            **{k: v for k, v in COMMON.items() if "temporal_args" not in k},
            "steps": 100,
            "log_every": 100,
            "eval_every": 100,
            "data.delay": 0.0,
            "data.sequence_length": 40,
            "data.sequence_hop": 20,
            "model.dropout": 0.0,
            "model.temporal": "none",
            "model.temporal_args": {},
            "optimizer.learning_rate": 0.03,
        },
        settings=plan.grid({"data.features": tuple(data.values()), "model.fusion": ("audio", "visual", "tfn")}),
        seeds=1,
    )
    score = {}
    for (seeds,), setting in zip(plan.cells(sweep), sweep.settings, strict=True):
        workdir = epath.Path(tmp_path / seeds[0].folder)
        assert seeds_together.train_seeds([seeds[0].config()], [workdir]) == [None]
        result = json.loads((workdir / "result.json").read_text())
        kind = next(k for k, path in data.items() if path == setting["data.features"])
        score[kind, setting["model.fusion"]] = result["metrics"]["test"]["ccc_mean"]
        if (kind, setting["model.fusion"]) == ("audio", "tfn"):
            # The fused checkpoint relies on the sound alone.
            alone = {m: result["modalities"][m]["test"]["ccc_mean"] for m in ("audio", "visual")}
            assert alone["audio"] > 0.7 > 0.3 > alone["visual"]
    assert min(score["audio", "audio"], score["audio", "tfn"]) > 0.85 > 0.3 > score["audio", "visual"]
    assert min(score["visual", "visual"], score["visual", "tfn"]) > 0.8 > 0.3 > score["visual", "audio"]
    assert score["both", "tfn"] > 0.8 > max(score["both", "audio"], score["both", "visual"])
    assert min(score["both", "audio"], score["both", "visual"]) > 0.3
    assert score["product", "tfn"] > 0.6 > 0.35 > max(score["product", "audio"], score["product", "visual"])


def test_settings_from_grids_and_draws():
    grid = plan.grid({"a": (1, 2), "b": ("x", "y")})
    assert grid == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    axes = {"rate": plan.Uniform(1e-4, 1e-1, log=True), "kind": ("u", "v")}
    drawn = plan.random(axes, 200, seed=1)
    assert drawn == plan.random(axes, 200, seed=1) != plan.random(axes, 200, seed=2)
    rates = np.log10([d["rate"] for d in drawn])
    assert -4 <= rates.min() < -3.5 < -1.5 < rates.max() <= -1
    assert abs(np.mean(rates) + 2.5) < 0.2
    assert {d["kind"] for d in drawn} == {"u", "v"}


def test_cells_of_a_search_share_everything_but_their_fields():
    sweep = plan.Sweep(
        title="t",
        experiment="configs/demo/fusion.py:smoke",
        settings=plan.grid({"model.fusion": ("gmu", "tfn"), "model.dropout": (0.0, 0.5)}),
        search=plan.grid({"optimizer.learning_rate": (1e-3, 1e-2)}),
        common={"steps": 3},
        seeds=2,
    )
    cells = plan.cells(sweep)
    assert np.shape(cells) == (4, 2, 2)
    cell = cells[3][1][1]
    assert (cell.setting, cell.candidate, cell.seed) == ("fusion=tfn, dropout=0.5", "learning_rate=0.01", 1)
    config = cell.config()
    assert (config.model.fusion, config.model.dropout, config.optimizer.learning_rate) == ("tfn", 0.5, 0.01)
    assert (config.steps, config.seed) == (3, 1)
    assert len({c.folder for group in cells for seeds in group for c in seeds}) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": [{"name": "a b"}, {"name": "a-b"}]}, "give them a 'name'"),
        ({"settings": []}, "no setting"),
        ({"reference": "nothing"}, "unknown reference setting"),
    ],
)
def test_a_malformed_sweep_is_named(changes, message):
    fields = {"title": "t", "experiment": "configs/demo/fusion.py", "settings": [{"name": "a"}], **changes}
    with pytest.raises(UserError, match=message):
        plan.cells(plan.Sweep(**fields))


def test_loading_a_sweep(tmp_path):
    with pytest.raises(UserError, match="not a sweep"):
        plan.load("configs/demo/fusion.py")
    with pytest.raises(UserError, match="number of seeds"):
        plan.load("configs/ablations/fusion.py", ["--config.seeds=none"])
    with pytest.raises(UserError, match="unknown variant"):
        plan.load("configs/ablations/fusion.py:nonsense")
    sweep = plan.load("configs/ablations/fusion.py:demo", ["--config.seeds=3", "--config.data.features=F"])
    assert (sweep.seeds, dict(sweep.common)) == (3, {"data.features": "F"})
    assert len(sweep.settings) == 14


@pytest.mark.parametrize("name", ["fusion", "temporal", "missing", "targets", "distillation", "end_to_end"])
@pytest.mark.parametrize("variant", ["", "demo", "smoke"])
def test_every_ablation_config_is_made_of_real_fields(name, variant):
    for candidates in plan.cells(plan.load(f"configs/ablations/{name}.py:{variant}")):
        config = candidates[0][0].config()
        if config.task == "audiovisual":
            from avemo.models import audiovisual

            audiovisual.build(config.model)
        if config.task == "student":
            from avemo.models import expression

            expression.build(config.model)


def test_emotions_are_scored_by_recall_and_rows_without_results_are_drawn_around(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    sweep = plan.Sweep(
        "Emotions", "configs/demo/fusion.py:real", plan.grid({"model.fusion": ("gmu", "late", "tfn")}), seeds=2
    )
    for cell in (c for seeds in plan.cells(sweep)[:2] for c in seeds[0]):
        folder = tmp_path / cell.folder
        (folder / "predictions").mkdir(parents=True)
        probability = np.eye(3)[labels] * (cell.setting == "gmu") + rng.random((12, 3)) * 0.9
        names = np.array([f"r{n}" for n in range(12)])
        np.savez(folder / "predictions" / "dev.npz", recording=names, label=labels, probability=probability)
        metrics = {"dev": {"uar": float(np.mean(probability.argmax(1) == labels)), "accuracy": 0.0, "macro_f1": 0.1}}
        (folder / "result.json").write_text(json.dumps({"metrics": metrics, "parameters": 10}))
    results = summary.results(sweep, epath.Path(tmp_path))
    assert [r.seeds for r in results] == [2, 2, 0]
    assert (results[0].scores.metric, results[0].split) == ("UAR", "dev")
    assert results[0].scores.main.value == pytest.approx(1.0)
    assert results[1].comparison.difference < -0.3
    assert results[1].p_holm == pytest.approx(results[1].comparison.p)  # nothing to correct with one comparison
    assert results[1].p_holm < 0.05
    assert results[1].comparison.p >= significance.smallest_p(12)
    written = tables.write(sweep, results, epath.Path(tmp_path), "x.py")
    assert {p.name for p in written} >= {"table.md", "table.tex", "table.csv", "ablation.html", "forest.png"}
    # The table says that dev, which is scored, chose the checkpoints; it does not if there was only one evaluation.
    assert "optimistic" in captions.notes(sweep, results)[0]
    alone = dataclasses.replace(sweep, common={"eval_every": 200})
    assert "last checkpoint" in captions.notes(alone, summary.results(alone, epath.Path(tmp_path)))[0]
    assert figures.recordings([(results[0], results[0].scores)]) is None  # nothing to compare with
    assert tables.number(-0.5) == "\N{MINUS SIGN}0.500"
    assert tables.count(15_556_008) == "15.6M"
    # A split that could not be scored is named with its reason.
    for path in tmp_path.glob("cells/*/*/result.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "unscored": {"test": "no record has a label"}}))
    again = summary.results(sweep, epath.Path(tmp_path))
    assert "Not scored on test: no record has a label" in captions.notes(sweep, again)
    # A setting without any score is named too, and does not stop the others.
    for cell in plan.cells(sweep)[2][0]:
        (tmp_path / cell.folder).mkdir(parents=True)
        result = {"metrics": {}, "unscored": {"dev": "no face was found"}, "parameters": 10}
        (tmp_path / cell.folder / "result.json").write_text(json.dumps(result))
    last = summary.results(sweep, epath.Path(tmp_path))[-1]
    assert (last.seeds, last.scores, last.error) == (0, None, "not scored on dev: no face was found")


def test_a_cell_that_another_sweep_trains_is_left_to_it(made, tmp_path):
    _, spec, overrides, _ = made
    folder = epath.Path(tmp_path / "out")
    cells = [seeds[0] for candidates in plan.cells(plan.load(spec, overrides)) for seeds in candidates]
    with contextlib.ExitStack() as locks:
        for cell in cells:
            if cell.setting != "nonsense":
                locks.enter_context(run_folder.lock(run_folder.prepare_workdir(cell.config(), folder / cell.folder)))
        result = runner.run(spec, str(folder), overrides)
    assert result["pending"] == ["concat", "late"]
    assert list(result["failed"]) == ["nonsense"]
    assert not list(pathlib.Path(folder).rglob("metrics.jsonl"))


def test_scores_of_each_stream_and_without_it_are_columns(tmp_path):
    sweep = plan.Sweep("Streams", "configs/demo/fusion.py:real", plan.grid({"model.fusion": ("gmu",)}), seeds=1)
    folder = tmp_path / plan.cells(sweep)[0][0][0].folder
    (folder / "predictions").mkdir(parents=True)
    labels = np.arange(12) % 3
    names = np.array([f"r{n}" for n in range(12)])
    np.savez(folder / "predictions" / "dev.npz", recording=names, label=labels, probability=np.eye(3)[labels])
    scores = {name: {"dev": {"uar": n / 10}} for n, name in enumerate(("voice", "face", "words"), 1)}
    result = {"metrics": {"dev": {"uar": 1.0}}, "parameters": 1, "modalities": scores, "without": scores}
    (folder / "result.json").write_text(json.dumps(result))
    results = summary.results(sweep, epath.Path(tmp_path))
    titles = [title for title, _ in tables.columns(results)]
    assert [t for t in titles if "voice" in t or "words" in t] == [
        *("voice only", "words only", "without voice", "without words")
    ]
    (row,) = csv.DictReader(tables.comma_separated(results).splitlines())
    assert (row["face_only"], row["without_words"], row["audio_only"]) == ("0.2", "0.3", "")
    notes = " ".join(captions.notes(sweep, results))
    assert "Voice only, face only, words only: the same fused checkpoints with the other streams masked" in notes
