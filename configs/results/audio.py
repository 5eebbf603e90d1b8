"""Results: the audio encoder on RAVDESS speech, fine-tuned from YAMNet, for two CPU cores."""

from ml_collections import ConfigDict

from configs import common
from configs.paper import audio


def get_config(variant: str = "") -> ConfigDict:
    config = audio.get_config()
    config.steps, config.log_every, config.eval_every = 300, 10, 75
    config.best_metric = "dev/uar"
    config.optimizer.update(name="adam", learning_rate=3e-4, schedule="cosine", warmup=0.1, clip_norm=1.0)
    config.ema = 0.98
    config.data.update(windows=3, window_hop=0.64, delay=0.0, eval_batch=32)
    config.data.batch.clips = 32
    config.data.augment.update(spec_time=24, spec_freq=12)
    config.loss.label_smoothing = 0.1
    config.model = {
        "name": "yamnet",
        "freeze_statistics": True,
        "frozen_layers": 5,
        "dropout": 0.3,
        "dtype": "float32",
        "num_classes": 8,
        "init_from": "",
    }
    if variant == "smoke":
        config.data.batch.clips = config.data.eval_batch = 8
        return common.smoke(config)
    return config
