"""A training example is a part of its record; only the compiled step augments it."""

import jax
import numpy as np

from avemo import configuration, tasks
from avemo.data import examples


def record(frames=60):
    return {
        "time": np.arange(frames) / 25, "fps": 25.0, "label": 0,
        "log_mel": np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32),
        "audio_index": np.arange(frames) * 4, "audio_mask": np.ones(frames, bool),
        "targets": np.zeros((frames, 2), np.float32), "target_mask": np.ones(frames, bool),
    }  # fmt: skip


def test_training_draws_where_the_windows_start_and_evaluation_centres_them():
    config = configuration.load("configs/demo/audio.py", ["--config.data.augment.spec_time=40"])
    config.data.update(windows=1, window_hop=0.04)
    clip = record()
    centred = examples.window_example(clip, None, config)["windows"][0]
    np.testing.assert_array_equal(centred, clip["log_mel"][29 * 4 :][:96])
    drawn = [examples.window_example(clip, np.random.default_rng(s), config)["windows"][0] for s in range(6)]
    starts = [int(np.flatnonzero((clip["log_mel"] == window[0]).all(1))[0]) for window in drawn]
    assert len(set(starts)) > 3
    for start, window in zip(starts, drawn, strict=True):
        np.testing.assert_array_equal(window, clip["log_mel"][start : start + 96])


def test_windows_are_masked_and_shifted_in_the_step():
    config = configuration.load("configs/demo/audio.py", ["--config.data.augment.spec_time=40"])
    windows = np.random.default_rng(0).normal(size=(8, 1, 96, 64)).astype(np.float32)

    def prepared():
        batch, _ = tasks.make(config).prepare({"clips": {"windows": windows}}, {}, jax.random.key(0))
        return np.asarray(batch["clips"]["windows"])[:, 0]

    assert sum(np.ptp(window, axis=1).min() == 0 for window in prepared()) >= 5
    config.data.augment.update(spec_time=0, spec_shift=8)
    assert sum((w[:, 0] == w[:, 1]).all() or (w[:, -1] == w[:, -2]).all() for w in prepared()) >= 5
    config.data.augment.spec_shift = 0
    np.testing.assert_array_equal(prepared(), windows[:, 0])
