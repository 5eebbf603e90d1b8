"""Results: the audio encoder on RAVDESS speech, eight emotions, YAMNet fine-tuned for two CPU cores.

The published weights are converted with BatchNorm statistics of the training part (`--statistics`): with the statistics
frozen it learns slower. The first three layers stay; the rest, dropout and a linear head train on three windows a clip,
moved over bands and masked. The learning rate and the augmentation were chosen by pilots on speakers 11 and 12, without
speakers 1 to 3; the length is a budget. The last checkpoint counts: nothing is chosen on dev.

    python -m avemo.models.pretrained yamnet --file=yamnet.tflite --output=WEIGHTS --statistics=DATA/speech
    python launch.py train --config=configs/results/audio.py --workdir=runs/results/speech \\
        --config.data.clips=DATA/speech --config.model.init_from=WEIGHTS

Variants: `smoke`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import audio


def get_config(variant: str = "") -> ConfigDict:
    config = audio.get_config()
    config.steps, config.log_every, config.eval_every = 240, 10, 240
    config.best_metric = "dev/uar"
    config.optimizer.update(name="adam", learning_rate=1e-3, schedule="cosine", warmup=0.1, clip_norm=1.0)
    config.ema = 0.98
    config.data.update(windows=3, window_hop=0.64, delay=0.0, eval_batch=32)
    config.data.batch.clips = 32
    config.data.augment.update(spec_shift=2, spec_time=24, spec_freq=12)
    config.loss.label_smoothing = 0.1
    config.model = {
        "name": "yamnet",
        "frozen_layers": 3,
        "dropout": 0.3,
        "dtype": "float32",
        "num_classes": 8,
        "init_from": "",
    }
    if variant == "smoke":
        config.data.batch.clips = config.data.eval_batch = 8
        return common.smoke(config)
    return config
