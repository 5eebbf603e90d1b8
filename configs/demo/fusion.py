"""The demo's fusion: `configs/paper/fusion.py` with half the hidden size and fewer steps.

Variants: `synthetic` (default; valence and arousal), `real` (RAVDESS takes: emotions), `smoke`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = fusion.get_config()
    config.steps, config.log_every, config.eval_every = 200, 10, 50
    config.optimizer.learning_rate = 2e-3
    config.data.update(sequence_length=250, sequence_hop=50, delay=1.0, eval_batch=4)
    config.data.batch.sequences = 8
    config.model.fusion_args.features = config.model.temporal_args.features = 64
    if variant == "real":
        config.data.update(sequence_length=19, sequence_hop=19, delay=0.0, eval_batch=16)
        config.data.batch.sequences = 16
        config.model.num_classes = 8
        config.best_metric = "dev/uar"
    if variant == "smoke":
        config.data.update(sequence_length=50, sequence_hop=25, eval_batch=8)
        return common.smoke(config)
    return config
