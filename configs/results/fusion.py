"""Results: fusion on RAVDESS takes, thirteen takes to learn from, on what both encoders' classes say of each frame.

The face network knows FER+'s eight classes, the audio encoder RAVDESS's eight from other speakers: features are their
logits (`launch.py extract --layer=logits`), sixteen numbers a frame, and what is learned from one speaker's takes is
small: one hidden layer, no recurrence. Half of the training sequences lose a modality, so that each learns to answer
alone; `late`, the mean of two models' logits, loses one in all of them. Chosen on the dev part of fold 1; the length is
a budget and the last checkpoint counts.

    python launch.py extract --workdir=runs/teacher,runs/speech --data=DATA/takes --output=FEATURES --layer=logits
    python launch.py train --config=configs/results/fusion.py --workdir=runs/results/fusion \\
        --config.data.features=FEATURES

Variants: `smoke`. All fusions: `configs/ablations/fusion.py:results`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion


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
    config.loss.label_smoothing = 0.1
    if variant == "smoke":
        return common.smoke(config)
    return config
