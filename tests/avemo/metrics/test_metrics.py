"""Metrics against plain float64 formulas, and the merging of their states."""

import numpy as np
import pytest

from avemo import metrics


def plain_ccc(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.fixture
def recordings():
    rng = np.random.default_rng(0)
    out = []
    for frames in (40, 1, 300):
        y = rng.normal(size=(frames, 2))
        x = 0.7 * y + 0.3 * rng.normal(size=y.shape) + 0.1
        out.append((x, y, rng.random(frames) < 0.8 if frames > 1 else np.ones(1, bool)))
    return out


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_traces_equal_the_plain_formulas(recordings, offset):
    rows = [(x + offset, y + offset, m) for x, y, m in recordings]
    scores = metrics.trace_scores(*zip(*rows, strict=True))
    x, y = (np.concatenate([r[i][r[2]] for r in rows]) for i in (0, 1))
    for i, name in enumerate(metrics.DIMENSIONS):
        assert scores[f"ccc_{name}"] == pytest.approx(plain_ccc(x[:, i], y[:, i]), abs=1e-6)
        assert scores[f"pearson_{name}"] == pytest.approx(np.corrcoef(x[:, i], y[:, i])[0, 1], abs=1e-9)
        assert scores[f"rmse_{name}"] == pytest.approx(np.sqrt(np.mean((x[:, i] - y[:, i]) ** 2)), abs=1e-9)
        each = [plain_ccc(a[m][:, i], b[m][:, i]) if m.sum() > 1 else 0.0 for a, b, m in rows]
        assert scores[f"ccc_recording_{name}"] == pytest.approx(np.mean(each), abs=1e-6)
    assert scores["ccc_mean"] == pytest.approx((scores["ccc_valence"] + scores["ccc_arousal"]) / 2)


def test_a_perfect_prediction_of_300_frames_scores_one():
    y = np.random.default_rng(1).normal(size=(300, 2))
    assert metrics.trace_scores([y], [y])["ccc_mean"] == pytest.approx(1, abs=1e-7)


def test_merging_is_exact_in_any_order(recordings):
    states = [metrics.trace_moments(*r) for r in recordings]
    whole = metrics.trace_moments(*(np.concatenate(p) for p in zip(*recordings, strict=True)))
    a, b, c = states
    for merged in (metrics.merge(metrics.merge(a, b), c), metrics.merge(c, metrics.merge(b, a))):
        np.testing.assert_allclose(merged, whole, atol=1e-12)
    nothing = metrics.trace_moments(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3, bool))
    np.testing.assert_allclose(metrics.merge(nothing, whole), whole, atol=1e-12)


def test_sums_and_centred_moments_give_the_same_ccc(recordings):
    sums = metrics.recording_sums(*zip(*recordings, strict=True))
    centred = np.stack([metrics.trace_moments(*r) for r in recordings])
    np.testing.assert_allclose(metrics.ccc_of_sums(sums), metrics.ccc(centred), atol=1e-12)
    whole = metrics.merge(metrics.merge(*centred[:2]), centred[2])
    np.testing.assert_allclose(metrics.ccc_of_sums(sums.sum(0)), metrics.ccc(whole), atol=1e-12)


def test_masked_and_unlabelled_frames_do_not_count():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50, 2))
    mask = np.arange(50) < 30
    y[10:13, 0] = np.nan
    state = metrics.trace_moments(x, y, mask)
    x[30:] = np.nan
    np.testing.assert_array_equal(metrics.trace_moments(x, y, mask), state)
    np.testing.assert_array_equal(state[:, 0], [27, 30])


def test_degenerate_traces_score_zero():
    y = np.random.default_rng(3).normal(size=(20, 2))
    for x, target, mask in (
        (np.ones_like(y), y, None),
        (y, np.ones_like(y), None),
        (y[:1], y[:1], None),
        (y, y, np.zeros(20, bool)),
    ):
        scores = metrics.trace_scores([x], [target], [mask])
        assert scores["ccc_mean"] == pytest.approx(0, abs=1e-9)
        assert scores["pearson_valence"] == 0
        assert np.isfinite(list(scores.values())).all()


def test_classification_on_a_worked_example():
    labels = np.array([0, 0, 0, 1, 2, -1])
    predicted = np.array([0, 0, 1, 1, 0, 3])
    counts = metrics.confusion(labels, predicted, 4)
    np.testing.assert_array_equal(counts[:3, :3], [[2, 1, 0], [0, 1, 0], [1, 0, 0]])
    scores = metrics.confusion_scores(counts)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["uar"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # class 3 never occurs
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    np.testing.assert_array_equal(
        metrics.confusion(labels[:3], predicted[:3], 4) + metrics.confusion(labels[3:], predicted[3:], 4), counts
    )


def test_calibration_error_on_a_worked_example():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # Bins of 0.9 (half right) and 0.6 (all right), two of four each.
    expected = 0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6)
    assert metrics.class_scores(labels, probabilities)["ece"] == pytest.approx(expected)
    halves = metrics.calibration(labels[:1], probabilities[:1]) + metrics.calibration(labels[1:], probabilities[1:])
    assert metrics.expected_calibration_error(halves) == pytest.approx(expected)
    assert metrics.class_scores(np.array([-1]), np.ones((1, 3)) / 3)["ece"] == 0


def test_triplet_accuracy_by_type():
    near, far = [0.0, 0.0], [3.0, 0.0]
    good, bad, collapsed = [near, [0.1, 0], far], [near, far, [0.1, 0]], [near, near, near]
    embeddings = np.array([good, bad, collapsed, good])
    scores = metrics.triplet_scores(embeddings, np.array([0, 0, 1, 1]))
    assert scores == {"triplet_accuracy": 0.5, "triplet_accuracy_one_class": 0.5, "triplet_accuracy_two_class": 0.5}
    moved = np.stack([embeddings[:, 2], embeddings[:, 0], embeddings[:, 1]], 1)  # puts the odd one first
    assert metrics.triplet_scores(moved, np.array([0, 0, 1, 1]), np.zeros(4, int)) == scores


def test_softmax_survives_large_logits():
    np.testing.assert_allclose(metrics.softmax(np.array([[1e4, 1e4 + np.log(3)]])), [[0.25, 0.75]])
