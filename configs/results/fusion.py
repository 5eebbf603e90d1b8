"""Results: fusion on RAVDESS takes, thirteen takes to learn from, on the class logits of both encoders per frame.

The face network knows FER+'s eight classes and the audio encoder knows RAVDESS's eight from other speakers. The
features are their logits (`launch.py extract --layer=logits`), sixteen numbers per frame. One speaker's takes are few,
so there is one hidden layer and no recurrence. Half of the training sequences lose a modality, so that each modality
learns to answer alone. `late`, the mean of two models' logits, loses one in every sequence. The settings were chosen on
the dev part of fold 1; the number of steps is a budget and the last checkpoint counts.

Expected: accuracy 0.842 [0.746, 0.935] for `late`, 0.885 [0.812, 0.950] for `model_level` (docs/results.md).
Hardware: two CPU cores, seconds.

    python launch.py extract --workdir=runs/teacher,runs/speech --data=DATA/takes --output=FEATURES --layer=logits
    python launch.py train --config=configs/results/fusion.py --workdir=runs/results/fusion \\
        --config.data.features=FEATURES

Variants: `smoke` trains one step. All fusions: `configs/ablations/fusion.py:results`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = fusion.get_config()
    config.steps, config.log_every, config.eval_every = 200, 20, 200
    config.optimizer.update(name="adamw", learning_rate=3e-3, weight_decay=0.1, schedule="cosine", warmup=0.05)
    config.data.update(sequence_length=19, sequence_hop=19, delay=0.0, eval_batch=16)
    config.data.batch.sequences = 13
    config.best_metric = "dev/uar"
    config.model.update(fusion="late", temporal="none", num_classes=8, dropout=0.2, modality_dropout=0.5)
    config.model.fusion_args.features = 64
    config.model.temporal_args = {}
    config.model.dtype = "float32"
    config.loss.label_smoothing = 0.1
    if variant == "smoke":
        return common.smoke(config)
    return config
