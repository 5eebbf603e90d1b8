"""Training examples are augmented, evaluation examples are not."""

import numpy as np

from avemo import configuration
from avemo.data import examples


def test_windows_are_masked_and_shifted_in_training_only():
    config = configuration.load("configs/demo/audio.py", ["--config.data.augment.spec_time=40"])
    frames = 60
    record = {
        "time": np.arange(frames) / 25, "fps": 25.0, "label": 0,
        "log_mel": np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32),
        "audio_index": np.arange(frames) * 4, "audio_mask": np.ones(frames, bool),
        "targets": np.zeros((frames, 2), np.float32), "target_mask": np.ones(frames, bool),
    }  # fmt: skip
    config.data.update(windows=1, window_hop=0.04)
    whole = examples.window_example(record, None, config)["windows"][0]
    assert np.ptp(whole, axis=1).min() > 0
    masked = [examples.window_example(record, np.random.default_rng(s), config)["windows"][0] for s in range(6)]
    assert sum(np.ptp(window, axis=1).min() == 0 for window in masked) >= 4
    config.data.augment.update(spec_time=0, spec_shift=8)
    shifted = [examples.window_example(record, np.random.default_rng(s), config)["windows"][0] for s in range(6)]
    assert sum((w[:, 0] == w[:, 1]).all() or (w[:, -1] == w[:, -2]).all() for w in shifted) >= 4
    np.testing.assert_array_equal(examples.window_example(record, None, config)["windows"][0], whole)
