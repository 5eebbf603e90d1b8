"""Intervals and tests against SciPy and against hand calculations."""

import numpy as np
import pytest
import scipy.stats

from avemo import metrics
from avemo.metrics import significance
from media.errors import UserError


def traces(rng, recordings=8, frames=60, seeds=1, noise=0.5):
    """Predictions of two-dimensional traces by several seeds, as sums [S, R, 2, 6] and as arrays."""
    targets = [np.cumsum(rng.normal(0, 0.1, (frames + 5 * r, 2)), 0) for r in range(recordings)]
    masks = [rng.random(len(t)) < 0.9 for t in targets]
    predictions = [[t + rng.normal(0, noise, t.shape) for t in targets] for _ in range(seeds)]
    return np.stack([metrics.recording_sums(p, targets, masks) for p in predictions]), predictions, targets, masks


def by_hand(x, y):
    """CCC with biased moments."""
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_both_ccc_conventions_equal_the_formula():
    sums, predictions, targets, masks = traces(np.random.default_rng(0))
    each = [
        [by_hand(p[m, k], t[m, k]) for k in range(2)] for p, t, m in zip(predictions[0], targets, masks, strict=True)
    ]
    assert significance.ccc_per_recording(sums).mean() == pytest.approx(np.mean(each), abs=1e-7)
    joined, gold = (np.concatenate([a[m] for a, m in zip(b, masks, strict=True)]) for b in (predictions[0], targets))
    whole = np.mean([by_hand(joined[:, k], gold[:, k]) for k in range(2)])
    assert significance.ccc_concatenated(sums).mean() == pytest.approx(whole, abs=1e-7)
    assert abs(whole - np.mean(each)) > 0.01  # the two conventions differ


def test_a_recording_without_labels_is_left_out_and_a_constant_trace_scores_zero():
    sums, predictions, targets, masks = traces(np.random.default_rng(1), recordings=3)
    fewer = metrics.recording_sums(predictions[0][:2], targets[:2], masks[:2])[None]
    blank = metrics.recording_sums(predictions[0], targets, [*masks[:2], np.zeros_like(masks[2])])[None]
    assert significance.ccc_per_recording(blank).mean() == pytest.approx(significance.ccc_per_recording(fewer).mean())
    assert significance.ccc_concatenated(blank).mean() == pytest.approx(significance.ccc_concatenated(fewer).mean())
    constant = metrics.recording_sums([np.zeros((9, 2))], [np.ones((9, 2))], [np.ones(9, bool)])
    assert metrics.ccc_of_sums(constant) == pytest.approx(0.0)
    assert sums.shape == (1, 3, 2, 6)


def test_class_scores_equal_the_definition():
    labels = np.array([0, 0, 0, 1, 1, -1])
    predicted = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    assert significance.accuracy(labels, predicted).seeds() == pytest.approx([3 / 5, 3 / 5])
    assert significance.uar(labels, predicted, 4).seeds() == pytest.approx([(2 / 3 + 1 / 2) / 2, 1 / 2])


def test_bootstrap_interval_is_scipys():
    sums, *_ = traces(np.random.default_rng(2), recordings=12)
    score = significance.ccc_per_recording(sums)
    values = score.evidence[0, :, 0]
    ours = significance.bootstrap(score, resamples=20000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", random_state=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.004)
    assert ours[0] < score.mean() < ours[1]


def test_bootstrap_of_the_concatenated_ccc_is_scipys_over_recording_indices():
    sums, *_ = traces(np.random.default_rng(3), recordings=10)
    ours = significance.bootstrap(significance.ccc_concatenated(sums), resamples=9999)
    theirs = scipy.stats.bootstrap(
        (np.arange(10),),
        lambda index: metrics.ccc_of_sums(sums[0][index].sum(0)).mean(),
        n_resamples=9999,
        vectorized=False,
        method="percentile",
        random_state=np.random.default_rng(2),
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.01)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for n in range(200):
        evidence = np.stack([rng.normal(0.3, 0.1, (1, 30)), np.ones((1, 30))], -1)
        low, high = significance.bootstrap(significance.Score(evidence, significance.ratio), resamples=500, seed=n)
        hits += low <= 0.3 <= high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize("recordings", [6, 20])
def test_permutation_p_value_is_scipys(recordings):
    rng = np.random.default_rng(5)
    sums, predictions, targets, masks = traces(rng, recordings=recordings, noise=0.6)
    better = metrics.recording_sums(
        [p * 0.8 + t * 0.2 for p, t in zip(predictions[0], targets, strict=True)], targets, masks
    )
    one, two = significance.ccc_per_recording(better[None]), significance.ccc_per_recording(sums)
    ours = significance.compare(one, two, resamples=9999)
    theirs = scipy.stats.permutation_test(
        (one.evidence[0, :, 0], two.evidence[0, :, 0]),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        random_state=np.random.default_rng(3),
    )
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9 if recordings == 6 else 0.01)
    assert ours.p >= significance.smallest_p(recordings) - 1e-12
    assert ours.low < ours.difference < ours.high
    assert ours.difference == pytest.approx(one.mean() - two.mean())


def test_a_model_does_not_differ_from_itself_and_seeds_are_averaged():
    sums, *_ = traces(np.random.default_rng(6), seeds=3)
    score = significance.ccc_concatenated(sums)
    same = significance.compare(score, score)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert score.mean() == pytest.approx(
        np.mean([significance.ccc_concatenated(sums[i : i + 1]).mean() for i in range(3)])
    )
    with pytest.raises(ValueError, match="paired"):
        significance.compare(score, significance.ccc_concatenated(sums[:, :4]))


def test_permutation_is_calibrated_under_the_null():
    rng = np.random.default_rng(7)
    ps = []
    for n in range(200):
        a, b = (np.stack([rng.normal(0, 1, (1, 10)), np.ones((1, 10))], -1) for _ in range(2))
        ps.append(
            significance.compare(
                significance.Score(a, significance.ratio),
                significance.Score(b, significance.ratio),
                resamples=1024,
                seed=n,
            ).p
        )
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01


def test_holm():
    # By hand: sorted 0.01·4, 0.02·3, 0.03·2 -> 0.04, 0.06, 0.06; 0.04·1 -> not below the one before.
    np.testing.assert_allclose(significance.holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(significance.holm([0.6, 0.7]), [1.0, 1.0])
    assert significance.holm([]).shape == (0,)
    # Never looser than Benjamini-Hochberg, never stricter than Bonferroni.
    p = np.random.default_rng(8).random(9) ** 3
    adjusted = significance.holm(p)
    assert (adjusted >= scipy.stats.false_discovery_control(p) - 1e-12).all()
    assert (adjusted <= np.minimum(p * 9, 1) + 1e-12).all()
    with pytest.raises(UserError, match=r"0\.\.1"):
        significance.holm([1.2])
