"""Results: valence and arousal of SEWA from the traces of nine other systems, 28 recordings (docs/sewa.md).

The streams are what five systems of sound and four of faces predict for the Devel part of AVEC 2019 CES: arousal,
valence and liking, ten times a second. Twenty-eight recordings are few, so traces start from a weighted mean of the
streams' own predictions, smoothed over time, and a network learns what to add.

Expected: docs/sewa.md. Hardware: two CPU cores, minutes for all folds.

    python -m data_prep features --source=SEWA --output=DATA --name=sewa ...        # the whole command: docs/sewa.md
    python launch.py train --config=configs/results/sewa.py --workdir=runs/sewa --config.data.features=DATA/sewa \\
        --config.data.fold=0/7 --config.data.dev_part=0/4

Variants: default; `smoke` trains one step. All folds: `configs/ablations/sewa.py`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion

VARIANTS = ("", "smoke")
SOUND = ("deepspectrum", "egemaps_func", "egemaps_xbow", "mfcc_func", "mfcc_xbow")
FACES = ("visual_func", "visual_resnet", "visual_vgg", "visual_xbow")


def get_config(variant: str = "") -> ConfigDict:
    config = fusion.get_config()
    config.steps, config.log_every, config.eval_every = 40, 20, 40  # a budget: the last checkpoint counts
    config.optimizer.update(name="adamw", learning_rate=2e-2, weight_decay=0.05, schedule="cosine", warmup=0.1)
    config.data.update(sequence_length=400, sequence_hop=200, delay=0.0, eval_batch=28)
    config.data.batch.sequences = 8
    config.model.update(
        streams=",".join((*SOUND, *FACES)),
        fusion="concat",
        temporal="none",
        dropout=0.3,
        prior="mean",
        prior_columns=(1, 0),  # the tables have arousal first
        prior_weights=(),
        prior_smooth=12.0,  # frames
        residual=1.0,
        head_features=0,
        dtype="float32",
    )
    config.model.fusion_args.features, config.model.temporal_args = 16, {}
    if variant == "smoke":
        config.data.update(sequence_length=20, sequence_hop=10)
        config.data.batch.sequences = 8
        return common.smoke(config)
    return config
