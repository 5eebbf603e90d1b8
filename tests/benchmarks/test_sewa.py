"""SEWA: the protocols, the scorer against the reference figures, and the commands."""

import numpy as np
import pytest

from avemo.sweep import plan
from benchmarks.peers import regressions
from benchmarks.results import sewa
from benchmarks.results.steps import ROOT, Place

NAMES = [f"Devel_{culture}_{number:02d}" for culture in ("DE", "HU") for number in range(1, 15)]


def test_protocols_test_every_recording_once_and_one_culture_from_the_other():
    found = regressions.protocols(NAMES)
    assert [number for fold in found["folds"] for number in fold] == [
        n for f in range(7) for n in range(28) if n % 7 == f
    ]
    assert found["hu_de"] == [list(range(14))]
    assert found["de_hu"] == [list(range(14, 28))]


def test_sweeps_have_the_same_folds(tmp_path):
    for spec, fold_by, count in (
        (sewa.FOLDS, "recording", 7),
        (sewa.CULTURES, "group", 2),
        (sewa.TABLE, "recording", 7),
    ):
        sweep = plan.load(spec)
        assert (sweep.fold_by, sweep.folds) == (fold_by, count)
    place = Place(tmp_path / "source", tmp_path / "work", "python")
    for experiment in sewa.EXPERIMENTS.values():
        assert experiment.page == "sewa.md"
        for step in experiment.steps(place):
            for argument in step.arguments:
                if argument.startswith("--config=configs/"):
                    assert (ROOT / argument.removeprefix("--config=").partition(":")[0]).is_file()


def test_peers_find_a_planted_line_and_choose_on_learned_recordings_alone():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(1000, 4)) for _ in range(6)]
    gold = [x[:, :2] * 0.5 + 0.1 for x in inputs]
    for method in regressions.STRENGTHS:
        said = regressions.predict(method, inputs, gold, [0, 1, 2, 3], [4, 5])
        for said_one, true in zip(np.concatenate(said).T, np.concatenate(gold[4:]).T, strict=True):
            assert np.corrcoef(said_one, true)[0, 1] > 0.95  # few frames, so the penalty shrinks the line
        spoilt = [*gold[:4], gold[4] * np.nan, gold[5] * np.nan]
        np.testing.assert_array_equal(said[0], regressions.predict(method, inputs, spoilt, [0, 1, 2, 3], [4, 5])[0])


@pytest.mark.data
def test_the_means_score_as_in_the_reference(real_data):
    if not (real_data / sewa.FOLDER).is_dir():
        pytest.skip(f"no {sewa.FOLDER} in {real_data}")
    _, said, gold = sewa._read(Place(real_data, real_data, "python"))
    for members, padded in (((*sewa.SOUND, *sewa.FACES), (0.523, 0.450)), (sewa.FACES, (0.517, 0.556))):
        mean = [np.mean([said[system][n] for system in members], 0) for n in range(len(gold))]
        scores = sewa._padded([mean], gold)
        assert (scores["arousal"], scores["valence"]) == pytest.approx(padded, abs=6e-4)
        masked = sewa._score(sewa._cut([mean], gold), gold, sewa.BOTH).mean()
        assert masked > (scores["arousal"] + scores["valence"]) / 2
