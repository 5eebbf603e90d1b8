"""Agreement against textbook figures, and on real raters."""

import numpy as np
import pytest

from data_prep import agreement, annotations

# Shrout & Fleiss (1979), table 2: six targets, four judges; their ICC(2,1) = .29, ICC(3,1) = .71, ICC(3,4) = .91.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], np.float64
)


def test_intraclass_correlations_are_the_textbooks():
    found = agreement.intraclass(SHROUT_FLEISS)
    assert found["icc_agreement"] == pytest.approx(0.29, abs=0.005)
    assert found["icc_consistency"] == pytest.approx(0.71, abs=0.005)
    assert found["icc_mean"] == pytest.approx(0.91, abs=0.005)
    assert found["alpha"] == pytest.approx(found["icc_mean"], abs=1e-12)


def test_identical_raters_agree_wholly_and_noise_not_at_all():
    line = np.linspace(-1, 1, 50)
    same = agreement.agreement(np.stack([line] * 3, axis=1))
    assert same["ccc"] == pytest.approx(1)
    assert same["icc_agreement"] == pytest.approx(1)
    noise = agreement.agreement(np.random.default_rng(0).standard_normal((4000, 5)))
    assert abs(noise["ccc"]) < 0.03
    assert abs(noise["alpha"]) < 0.15


def test_an_offset_costs_agreement_but_not_consistency():
    line = np.linspace(-1, 1, 50)
    found = agreement.agreement(np.stack([line, line + 1], axis=1))
    assert found["pearson"] == pytest.approx(1)
    assert found["icc_consistency"] == pytest.approx(1)
    assert found["ccc"] < 0.7
    assert found["icc_agreement"] < 0.7


def test_recolas_raters_are_read(tmp_path, draw, capsys):
    source = draw.recola(tmp_path / "a", (16,), seconds=1.0)
    assert agreement.main([f"--source={source}", f"--output={tmp_path / 'a.json'}"]) == 0
    assert "1 recordings" in capsys.readouterr().out
    assert (tmp_path / "a.json").exists()


def test_a_wrong_source_is_one_line(tmp_path, capsys):
    assert agreement.main([f"--source={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "P01.csv").write_text("video,time,valence\nV1,0,1\n")
    assert agreement.main([f"--source={tmp_path}"]) == 2
    assert "the header must have" in capsys.readouterr().err


def test_real_raters(real_data):
    if not (real_data / "ceap").is_dir():
        pytest.skip("no CEAP")
    tables = agreement.read_rater_tables(real_data / "ceap")
    assert len(tables) == 8
    raters = tables["V1"]["arousal"]
    assert raters.shape[1] == 16
    # EWE computed independently, from NumPy's correlation matrix.
    whole = raters[np.isfinite(raters).all(axis=1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.nan_to_num(np.corrcoef(whole.T))
    np.fill_diagonal(matrix, 0)
    weights = np.maximum(matrix.sum(axis=0) / 15, 0)
    np.testing.assert_allclose(annotations.gold_standard(whole, "ewe"), whole @ weights / weights.sum(), atol=1e-9)
