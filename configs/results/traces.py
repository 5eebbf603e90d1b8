"""Results: valence and arousal traces of the synthetic corpus.

Expected: mean CCC 0.863 [0.818, 0.896] on test for `fusion` (docs/results.md). Hardware: two CPU cores; all steps
together took 27 minutes.

    python launch.py train --config=configs/results/traces.py:fusion --workdir=runs/results/traces_fusion \\
        --config.data.features=FEATURES

Variants: `fusion` (default), on cached features of both encoders, read in both directions of time; `face`, the demo's
teacher trained longer; `audio`, YAMNet fine-tuned on traces. `fusion_smoke`, `face_smoke` and `audio_smoke` train one
step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.demo import fusion, teacher
from configs.paper import audio

VARIANTS = ("fusion", "face", "audio", "fusion_smoke", "face_smoke", "audio_smoke")


def get_config(variant: str = "fusion") -> ConfigDict:
    name, _, _ = variant.partition("_smoke")
    if name == "face":
        config = teacher.get_config()
        config.steps, config.eval_every = 320, 80
    elif name == "audio":
        config = audio.get_config()
        config.steps, config.log_every, config.eval_every = 200, 10, 100
        config.optimizer.update(learning_rate=1e-3, warmup=0.1)
        config.ema = 0.98
        config.data.update(windows=24, window_hop=0.6, delay=1.0, eval_batch=8)
        config.data.batch.clips = 4
        config.data.augment.update(spec_time=12, spec_freq=6)
        config.model = {
            "name": "yamnet",
            "frozen_layers": 3,
            "dropout": 0.2,
            "dtype": "float32",
            "num_classes": 0,
            "init_from": "",
        }
    else:
        config = fusion.get_config()
        config.steps, config.eval_every = 400, 50
        config.ema = 0.98
        config.model.update(temporal="bigru", dropout=0.3)
        config.optimizer.update(name="adamw", weight_decay=0.01)
    return common.smoke(config) if variant != name else config
