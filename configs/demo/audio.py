"""The demo's audio encoder: `configs/paper/audio.py` at an eighth of VGGish's width.

Expected: not measured alone; README.md has the traces from sound. `real` is not measured.
Hardware: two CPU cores; README.md says how long the whole demo took.

`python launch.py demo --workdir=runs/demo` prepares the data and runs this command:

    python launch.py train --config=configs/demo/audio.py:synthetic --workdir=runs/demo/audio \\
        --config.data.clips=runs/demo/data/clips --config.seed=0

Variants: `synthetic` (default), valence and arousal; `real`, the eight emotions of RAVDESS speech; `pretrained`, the
same with the YAMNet of `model.init_from` frozen and a linear head trained on it; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import audio

VARIANTS = ("synthetic", "real", "pretrained", "smoke")


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = audio.get_config()
    config.steps, config.log_every, config.eval_every = 100, 10, 50
    config.optimizer.learning_rate = 1e-3
    config.data.update(windows=12, window_hop=1.0, delay=1.0)
    config.data.batch.clips, config.data.eval_batch = 8, 8
    config.model.update(width=0.125, fc_dim=256, dtype="float32")
    if variant in ("real", "pretrained"):
        config.steps, config.eval_every = 400, 100
        config.data.update(windows=3, window_hop=0.8, delay=0.0)
        config.data.batch.clips, config.data.eval_batch = 32, 32
        config.model.num_classes = 8
        config.best_metric = "dev/uar"
    if variant == "pretrained":
        config.steps = config.eval_every = 20
        # A momentum of 1 keeps BatchNorm's published statistics.
        config.model = {"name": "yamnet", "bn_momentum": 1.0, "dtype": "float32", "num_classes": 8, "init_from": ""}
        config.optimizer.freeze = ("^encoder/",)
    if variant == "smoke":
        config.data.windows = 2
        return common.smoke(config)
    return config
