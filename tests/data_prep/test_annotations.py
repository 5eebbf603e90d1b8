"""Gold standards against independent arithmetic; RECOLA's and AVEC's files with their odd spellings."""

import numpy as np
import pytest

from data_prep import annotations
from media.errors import BadItem, UserError


@pytest.fixture
def raters():
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.standard_normal(400)) / 20
    offsets, gains = [0.5, -0.2, 0.0, 0.1], [1.0, 0.7, 1.3, -0.5]
    return np.stack([g * signal + o + 0.2 * rng.standard_normal(400) for g, o in zip(gains, offsets, strict=True)], 1)


def test_the_mean_is_the_mean(raters):
    np.testing.assert_allclose(annotations.gold_standard(raters, "mean"), raters.mean(axis=1))


def test_ewe_against_an_independent_implementation(raters):
    correlation = np.corrcoef(raters.T)
    weights = [np.mean([correlation[i, j] for j in range(4) if j != i]) for i in range(4)]
    weights = np.maximum(weights, 0)
    assert weights[3] == 0  # the rater who contradicts the others does not count
    np.testing.assert_allclose(annotations.gold_standard(raters, "ewe"), raters @ weights / weights.sum(), atol=1e-12)


def test_ccc_centring_against_an_independent_implementation(raters):
    def concordance(a, b):
        return 2 * np.cov(a, b, bias=True)[0, 1] / (np.var(a) + np.var(b) + (a.mean() - b.mean()) ** 2)

    weights = [np.mean([concordance(raters[:, i], raters[:, j]) for j in range(4) if j != i]) for i in range(4)]
    weights = np.maximum(weights, 0)
    level = np.average(raters.mean(axis=0), weights=weights)
    plain = raters.mean(axis=1)
    expected = plain - plain.mean() + level
    np.testing.assert_allclose(annotations.gold_standard(raters, "ccc"), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["mean", "ewe", "ccc"])
def test_an_absent_rater_does_not_count_and_a_single_rater_is_the_standard(raters, method):
    alone = annotations.gold_standard(raters[:, :1], method)
    np.testing.assert_allclose(alone, raters[:, 0], atol=1e-12)
    absent = np.concatenate([raters[:, :1], np.full((400, 2), np.nan)], axis=1)
    np.testing.assert_allclose(annotations.gold_standard(absent, method), raters[:, 0], atol=1e-12)
    assert np.isnan(annotations.gold_standard(np.full((5, 3), np.nan), method)).all()


def test_raters_who_contradict_each_other_fall_back_to_the_mean():
    line = np.linspace(-1, 1, 50)
    both = np.stack([line, -line], axis=1)
    np.testing.assert_allclose(annotations.gold_standard(both, "ewe"), 0, atol=1e-12)


def test_an_unknown_standard_lists_the_known_ones(raters):
    with pytest.raises(UserError, match="ccc, ewe, mean"):
        annotations.gold_standard(raters, "median")


def test_resampling_interpolates_and_does_not_extrapolate():
    time, values = np.array([0.0, 0.04, 0.08]), np.array([0.0, 1.0, 3.0])
    out = annotations.resample(time, values, np.array([-0.5, -0.02, 0.0, 0.06, 0.1, 0.13]))
    np.testing.assert_allclose(out, [np.nan, 0.0, 0.0, 2.0, 3.0, np.nan])
    both = annotations.resample(time, np.stack([values, -values], 1), np.array([0.02]))
    np.testing.assert_allclose(both, [[0.5, -0.5]])


def test_a_rater_gap_stays_a_gap():
    out = annotations.resample(np.arange(4.0), np.array([0, np.nan, 2, 3]), np.array([0.5, 2.5]))
    assert np.isnan(out[0])
    assert out[1] == 2.5


def test_recolas_header_with_its_trailing_spaces(tmp_path, draw):
    path = tmp_path / "P16.csv"
    path.write_text("﻿" + draw.header + "\n0;1;2;3;4;5;6\n0.04;1;2;3;;5;6\n", encoding="utf-8")
    time, names, values = annotations.read_traces(path)
    assert names == ["FM1", "FM2", "FM3", "FF1", "FF2", "FF3"]
    assert time.tolist() == [0, 0.04]
    assert values.shape == (2, 6)
    assert np.isnan(values[1, 3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("moment;FM1\n0;1\n", "must begin with 'time'"),
        ("time;FM1\n0;x\n", "line 2"),
        ("time;FM1\n0;1\n0.04\n", "line 3: 1 cells for 2 columns"),
        ("time;FM1\n0;1\n0;1\n", "do not rise"),
    ],
)
def test_a_broken_table_says_where(tmp_path, text, said):
    path = tmp_path / "P16.csv"
    path.write_text(text)
    with pytest.raises(BadItem, match=said):
        annotations.read_traces(path)


def test_avecs_arff(tmp_path):
    path = tmp_path / "train_1.arff"
    path.write_text(
        "% comment\n@relation gold\n@attribute Instance_name string\n@ATTRIBUTE frameTime numeric\n"
        "@attribute GoldStandard numeric\n@data\n'train 1',0.00,0.1\n'train 1',0.04,-0.2\n"
    )
    time, gold = annotations.read_arff(path)
    assert time.tolist() == [0, 0.04]
    assert gold.tolist() == [0.1, -0.2]
    path.write_text("@attribute a numeric\n@data\n1\n")
    with pytest.raises(BadItem, match="GoldStandard expected"):
        annotations.read_arff(path)
