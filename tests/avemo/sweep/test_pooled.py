"""Cross-validation in a sweep: folds pooled, candidates chosen on dev parts, post-processing fitted there."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from etils import epath

from avemo import metrics
from avemo.sweep import captions, plan, pooled, summary, tables
from media.errors import UserError

SWEEP = plan.Sweep(
    title="Folds",
    experiment="configs/demo/fusion.py:smoke",
    settings=[{"name": "a"}, {"name": "b", "model.fusion": "gmu"}],
    search=[{"name": "good"}, {"name": "bad", "model.dropout": 0.1}],
    folds=3,
    fold_by="recording",
    dev_parts=2,
    seeds=2,
    postprocess=False,
)
FRAMES, RECORDINGS = 40, 6


def gold(number):
    rng = np.random.default_rng(number)
    return np.cumsum(rng.normal(size=(FRAMES, 2)), 0).astype(np.float32) / 5


def prediction(cell, number, dimensions=(0.1, 0.1)):
    """The gold trace with noise of these sizes, different for every network."""
    rng = np.random.default_rng([number, cell.seed, len(cell.folder), sum(map(ord, cell.folder))])
    return (gold(number) + rng.normal(size=(FRAMES, 2)) * np.array(dimensions)).astype(np.float32)


def write(folder, cell, noise):
    """What a cell leaves: predictions of its dev part, and of its fold, also with the face alone, which is worse."""
    fold, part = int(cell.fold[0]), int(cell.folder.partition("part_")[2][0])
    test = [n for n in range(RECORDINGS) if n % 3 == fold]
    learned = [n for n in range(RECORDINGS) if n % 3 != fold]
    where = folder / cell.folder / "predictions"
    (where / "modalities" / "face").mkdir(parents=True)
    for split, numbers in (("test", test), ("dev", learned[part::2]), ("modalities/face/test", test)):
        noise = np.array(noise) + (split == "modalities/face/test")
        np.savez(
            where / f"{split}.npz",
            recording=np.array([f"r{n}" for n in numbers]),
            length=np.full(len(numbers), FRAMES),
            time=np.tile(np.arange(FRAMES) / 10, len(numbers)),
            prediction=np.concatenate([prediction(cell, n, noise) for n in numbers]),
            target=np.concatenate([gold(n) for n in numbers]),
            mask=np.ones(FRAMES * len(numbers), bool),
        )
    result = {"metrics": {"test": {}, "dev": {}}, "parameters": 7, "modalities": {"face": {"test": {"ccc_mean": 9.0}}}}
    (folder / cell.folder / "result.json").write_text(json.dumps(result))


def made(tmp_path, sweep, noise):
    for candidates in plan.cells(sweep):
        for cells in candidates:
            for cell in cells:
                write(tmp_path, cell, noise[cell.candidate])
    return epath.Path(tmp_path)


def test_cells_name_their_fold_and_dev_part():
    cells = plan.cells(SWEEP)[1][0]
    assert len(cells) == 3 * 2 * 2
    assert cells[-1].folder == "cells/b/good/fold_2/part_1/seed_1"
    fields = ("--config.data.fold=2/3", "--config.data.fold_by=recording", "--config.data.dev_part=1/2")
    assert set(fields) < set(cells[-1].overrides)
    config = cells[-1].config()
    assert (config.data.fold, config.data.dev_part, config.seed) == ("2/3", "1/2", 1)
    with pytest.raises(UserError, match="searches over folds: set dev_parts"):
        plan.cells(replace(SWEEP, dev_parts=0))
    (without, *_), *_ = plan.cells(replace(SWEEP, dev_parts=0, search=SWEEP.search[:1]))[0]
    assert without.folder == "cells/a/good/fold_0/seed_0"
    assert tuple(without.config().eval_splits) == ()
    loaded = plan.load("configs/ablations/fusion.py:demo", ["--config.folds=4", "--config.fold_by=subject"])
    assert (loaded.folds, loaded.fold_by) == (4, "subject")
    with pytest.raises(UserError, match="number of folds above 1"):
        plan.load("configs/ablations/fusion.py:demo", ["--config.folds=1"])


def test_folds_are_pooled_and_the_networks_of_a_fold_averaged(tmp_path):
    folder = made(tmp_path, SWEEP, {"good": (0.1, 0.1), "bad": (2.0, 2.0)})
    first, second = summary.results(SWEEP, folder)
    assert (first.seeds, first.wanted, first.folds, first.candidate) == (2, 2, 3, "good")
    assert list(first.scores.recordings) == [f"r{n}" for n in range(RECORDINGS)]
    seeds = []
    for seed in (0, 1):
        cells = [c for c in plan.cells(SWEEP)[0][0] if c.seed == seed]
        mean = [
            np.mean([prediction(c, n) for c in cells if c.fold == f"{n % 3}/3"], 0, dtype=np.float64)
            for n in range(RECORDINGS)
        ]
        seeds.append(metrics.trace_scores(mean, [gold(n) for n in range(RECORDINGS)])["ccc_mean"])
    assert first.scores.main.value == pytest.approx(np.mean(seeds), abs=1e-6)
    assert first.scores.main.deviation == pytest.approx(np.std(seeds, ddof=1), abs=1e-6)
    alone = pooled.choose(SWEEP, plan.cells(SWEEP)[0], folder).results[0]["modalities"]["face"]["test"]["ccc_mean"]
    assert 0.3 < alone < first.scores.main.value - 0.05  # of all folds' recordings, not one fold's own score
    assert first.scores.alone["face"] == pytest.approx(alone, abs=0.1)
    assert second.comparison is not None
    assert second.p_holm is not None
    notes = captions.notes(SWEEP, [first, second])
    assert "pooled over 3 folds by recording (6 recordings)" in notes[0]
    assert "| a (good)" in tables.markdown(SWEEP, [first, second], "x.py").replace("[", "")


def test_folds_without_predictions_of_single_streams_are_pooled_without_them(tmp_path):
    folder = made(tmp_path, SWEEP, {"good": (0.1, 0.1), "bad": (2.0, 2.0)})
    shutil.rmtree(folder / plan.cells(SWEEP)[0][0][0].folder / "predictions" / "modalities")
    first, second = summary.results(SWEEP, folder)
    assert not first.scores.alone
    assert second.scores.alone


def test_each_dimension_has_its_own_candidate_if_asked(tmp_path):
    folder = made(tmp_path, SWEEP, {"good": (0.05, 2.0), "bad": (1.0, 0.05)})
    cells = plan.cells(SWEEP)[0]
    one = pooled.choose(SWEEP, cells, folder)
    each = pooled.choose(replace(SWEEP, per_dimension=True), cells, folder)
    assert each.candidate == "good 3/6, bad 3/6"
    assert each.mean("ccc_valence") > 0.95
    assert each.mean("ccc_arousal") > 0.95
    assert min(one.mean("ccc_valence"), one.mean("ccc_arousal")) < 0.9


def test_the_tested_fold_decides_nothing(tmp_path):
    """Whatever the test predictions are, the same candidate is chosen."""
    folder = made(tmp_path, SWEEP, {"good": (0.1, 0.1), "bad": (0.5, 0.5)})
    for cell in plan.cells(SWEEP)[0][1]:
        path = folder / cell.folder / "predictions" / "test.npz"
        perfect = dict(np.load(path))
        np.savez(path, **{**perfect, "prediction": perfect["target"]})
    assert pooled.choose(SWEEP, plan.cells(SWEEP)[0], folder).candidate == "good"


def test_post_processing_is_fitted_on_dev_parts(tmp_path):
    sweep = replace(SWEEP, postprocess=True, search=({},), seeds=1, settings=[{"name": "a"}])
    folder = epath.Path(tmp_path)
    for cell in plan.cells(sweep)[0][0]:
        write(folder, cell, (0.05, 0.05))
        for split in ("dev", "test"):  # every network predicts half of the trace, too high
            path = folder / cell.folder / "predictions" / f"{split}.npz"
            arrays = dict(np.load(path))
            np.savez(path, **{**arrays, "prediction": arrays["prediction"] / 2 + 1})
    found = pooled.choose(sweep, plan.cells(sweep)[0], folder)
    assert found.processed.main > found.main.mean() + 0.1
    assert found.processed.kept["centring"] == 6  # two dimensions of three folds


def test_a_setting_with_an_unfinished_fold_is_not_scored(tmp_path):
    folder = made(tmp_path, SWEEP, {"good": (0.1, 0.1), "bad": (0.5, 0.5)})
    (folder / "cells/a/good/fold_1/part_0/seed_0/result.json").unlink()
    first, second = summary.results(SWEEP, folder)
    assert (first.seeds, second.seeds) == (1, 2)


def test_the_best_candidates_are_averaged_if_asked(tmp_path):
    search = [{"name": name, "model.dropout": n / 10} for n, name in enumerate(("good", "bad", "worst"))]
    sweep = replace(SWEEP, search=search, average=2, settings=[{"name": "a"}])
    folder = made(tmp_path, sweep, {"good": (0.3, 0.3), "bad": (0.35, 0.35), "worst": (3.0, 3.0)})
    (cells,) = plan.cells(sweep)
    both, one = (pooled.choose(replace(sweep, average=n), cells, folder) for n in (2, 1))
    assert both.candidate == "good 3/6, bad 3/6"
    assert one.candidate == "good"
    first = [c for candidate in cells[:2] for c in candidate if (c.seed, c.fold) == (0, "0/3")]
    expected = np.mean([_said(folder, c, "r0") for c in first], 0)
    np.testing.assert_allclose(both.predictions[0]["prediction"][:FRAMES], expected, atol=1e-6)
    assert both.main.mean() > one.main.mean()


def _said(folder, cell, name):
    arrays = np.load(folder / cell.folder / "predictions" / "test.npz")
    place = list(arrays["recording"]).index(name)
    return arrays["prediction"][place * FRAMES : (place + 1) * FRAMES]
