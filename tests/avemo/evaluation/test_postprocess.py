"""Post-processing recovers what was done to a trace, and never makes dev worse."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avemo import metrics
from avemo.evaluation import postprocess
from avemo.metrics import significance
from media.errors import UserError

FPS = 25.0


def gold(rng, frames=1500, count=4):
    """Smooth traces [T, 2] between about −1 and 1."""
    kernel = np.hanning(101) / np.hanning(101).sum()
    noise = rng.normal(0, 5, (count, frames + 100, 2))
    return [np.stack([np.convolve(n[:, k], kernel, "valid") for k in range(2)], -1) * 0.4 + 0.1 for n in noise]


def scores(traces, targets, masks):
    sums = metrics.recording_sums(traces, targets, masks)[None]
    return significance.ccc_per_recording(sums).mean(), significance.ccc_concatenated(sums).mean()


def test_it_recovers_a_known_delay_bias_scale_and_removes_spikes():
    rng = np.random.default_rng(0)
    targets = gold(rng)
    masks = [np.ones(len(t), bool) for t in targets]
    late = [postprocess.moved_earlier(t, -0.6, FPS) for t in targets]
    bent = [0.3 + 0.5 * (t - 0.1) for t in late]
    for b in bent:
        b[rng.integers(0, len(b), 60)] += rng.normal(0, 1, (60, 2))
    steps = postprocess.fit(bent, targets, masks, [FPS] * 4)
    for step in steps:
        assert step.kept == ("median", "centring", "scaling", "shift")
        assert step.shift == pytest.approx(0.6, abs=1 / FPS + 1e-6)
        assert step.scale == pytest.approx(2.0, rel=0.05)
        assert step.bias == pytest.approx(-0.2, abs=0.05)
    after = [postprocess.apply(steps, b, FPS) for b in bent]
    assert after[0].dtype == np.float32
    assert min(scores(after, targets, masks)) > 0.97
    assert max(scores(bent, targets, masks)) < 0.6
    # Fitting reports the scores that applying gives.
    each = metrics.ccc_of_sums(metrics.recording_sums(after, targets, masks)).mean(0)
    assert [s.after for s in steps] == pytest.approx(each, abs=1e-5)


def test_a_perfect_trace_is_left_alone():
    targets = gold(np.random.default_rng(1))
    masks = [np.ones(len(t), bool) for t in targets]
    steps = postprocess.fit(targets, targets, masks, [FPS] * 4)
    for step in steps:
        assert np.abs(step.apply(targets[0][:, 0], FPS) - targets[0][:, 0]).max() < 1e-6
    assert all(s.after >= s.before for s in steps)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per", ["recording", "concatenated"])
def test_dev_never_falls_whatever_the_trace(seed, per):
    rng = np.random.default_rng(seed)
    targets = gold(rng, frames=400 + 50 * seed, count=3)
    masks = [rng.random(len(t)) < 0.8 for t in targets]
    kinds = [
        lambda t: rng.normal(0, 1, t.shape),
        lambda t: t * -1 + rng.normal(0, 0.1, t.shape),
        lambda t: np.full(t.shape, 0.3),
        lambda t: t + rng.normal(0, 0.5, t.shape),
        lambda t: np.roll(t, 40, 0) * 2 - 1,
        lambda t: np.sign(t),
    ]
    traces = [kinds[seed](t) for t in targets]
    steps = postprocess.fit(traces, targets, masks, [FPS, 20.0, FPS], per=per)
    after = [postprocess.apply(steps, t, f) for t, f in zip(traces, [FPS, 20.0, FPS], strict=True)]
    before, now = (
        metrics.ccc_of_sums(metrics.recording_sums(x, targets, masks)).mean(0) for x in (traces, after)
    )  # each dimension, mean over recordings
    assert (now >= before - 1e-6).all()
    assert all(
        n >= b - 1e-6 for n, b in zip(scores(after, targets, masks), scores(traces, targets, masks), strict=True)
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_dev_never_falls_for_traces_that_hypothesis_makes(data):
    """Any combination of level, spread, delay, noise, gaps in the labels and length, under either convention."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    level, spread = data.draw(st.floats(-3, 3)), data.draw(st.floats(-3, 3))
    noise, delay = data.draw(st.floats(0, 2)), data.draw(st.integers(-40, 40))
    lengths = data.draw(st.lists(st.integers(30, 250), min_size=1, max_size=3))
    per = data.draw(st.sampled_from(("recording", "concatenated")))
    targets = [gold(rng, frames=n, count=1)[0] for n in lengths]
    masks = [rng.random(n) < 0.7 for n in lengths]
    masks[0][:5] = True
    traces = [level + spread * np.roll(t, delay, 0) + noise * rng.normal(size=t.shape) for t in targets]
    fps = [FPS] * len(lengths)
    steps = postprocess.fit(traces, targets, masks, fps, per=per)
    after = [postprocess.apply(steps, t, f) for t, f in zip(traces, fps, strict=True)]
    for before, now in zip(scores(traces, targets, masks), scores(after, targets, masks), strict=True):
        assert now >= before - 1e-6


def test_test_is_processed_with_the_steps_fitted_on_dev_alone():
    rng = np.random.default_rng(9)
    targets = gold(rng)
    masks = [np.ones(len(t), bool) for t in targets]
    steps = postprocess.fit([0.5 * t + 0.4 for t in targets], targets, masks, [FPS] * 4)
    trace = rng.normal(0, 3, (80, 2)) + 7  # level and spread differ from dev's
    whole = postprocess.apply(steps, trace, FPS)
    expected = [s.centre + s.scale * (trace[:, k] + s.bias - s.centre) for k, s in enumerate(steps)]
    np.testing.assert_allclose(whole, np.stack(expected, -1), rtol=1e-5)


def test_bad_input_is_named():
    trace = [np.zeros((5, 2))]
    with pytest.raises(UserError, match="none"):
        postprocess.fit(trace, trace, [np.zeros(5, bool)], [FPS])
    with pytest.raises(UserError, match="finite"):
        postprocess.fit([np.full((5, 2), np.nan)], trace, [np.ones(5, bool)], [FPS])


def predictions(traces, targets):
    """The arrays in predictions/<split>.npz."""
    return {
        "recording": np.array([f"r{n}" for n in range(len(traces))]),
        "length": np.array([len(t) for t in traces]),
        "time": np.concatenate([np.arange(len(t)) / FPS for t in traces]),
        "prediction": np.concatenate(traces).astype(np.float32),
        "target": np.concatenate(targets).astype(np.float32),
        "mask": np.ones(sum(map(len, traces)), bool),
    }


def test_the_command_fits_on_dev_and_scores_test(tmp_path, capsys):
    assert postprocess.main(["--workdir", str(tmp_path)]) == 2
    assert "predictions" in capsys.readouterr().err
    (tmp_path / "predictions").mkdir()
    targets = gold(np.random.default_rng(3), frames=600)
    bent = [postprocess.moved_earlier(0.4 * t - 0.5, -0.8, FPS) for t in targets]
    np.savez(tmp_path / "predictions" / "dev.npz", **predictions(bent[:2], targets[:2]))
    np.savez(tmp_path / "predictions" / "test.npz", **predictions(bent[2:], targets[2:]))
    assert postprocess.main(["--workdir", str(tmp_path)]) == 0
    out = json.loads((tmp_path / "postprocess.json").read_text())
    assert out["steps"]["arousal"]["shift"] == pytest.approx(0.8, abs=0.05)
    for split in ("dev", "test"):
        assert out["metrics"][split]["after"]["ccc_recording"] > out["metrics"][split]["before"]["ccc_recording"] + 0.3


def test_a_split_without_labels_is_not_scored(tmp_path):
    (tmp_path / "predictions").mkdir()
    targets = gold(np.random.default_rng(4), frames=200, count=2)
    arrays = predictions(targets, targets)
    np.savez(tmp_path / "predictions" / "dev.npz", **arrays)
    np.savez(tmp_path / "predictions" / "test.npz", **{**arrays, "mask": np.zeros_like(arrays["mask"])})
    assert list(postprocess.run(tmp_path)["metrics"]) == ["dev"]


@pytest.mark.data
def test_it_runs_on_real_raters_traces(real_data):
    """One rater of CEAP-360VR as the 'prediction' of the mean of the others."""
    folder = real_data / "ceap"
    if not folder.is_dir():
        pytest.skip("no ceap/ there")
    raters = []
    for path in sorted(folder.glob("P*.csv"))[:8]:
        videos: dict[str, list] = {}
        with path.open() as file:
            for row in csv.DictReader(file):
                videos.setdefault(row["video"], []).append((float(row["valence"]), float(row["arousal"])))
        raters.append({k: (np.array(v) - 5) / 4 for k, v in videos.items()})
    names = sorted(set.intersection(*(set(r) for r in raters)))
    size = {n: min(len(r[n]) for r in raters) for n in names}
    one = [raters[0][n][: size[n]] for n in names]
    rest = [np.mean([r[n][: size[n]] for r in raters[1:]], 0) for n in names]
    masks = [np.ones(len(t), bool) for t in one]
    fit = slice(0, len(names) // 2)
    steps = postprocess.fit(one[fit], rest[fit], masks[fit], [FPS] * len(one[fit]))
    after = [postprocess.apply(steps, t, FPS) for t in one]
    assert all(s.after >= s.before for s in steps)
    assert all(np.isfinite(t).all() and t.shape == o.shape for t, o in zip(after, one, strict=True))
    assert any(s.kept for s in steps)
