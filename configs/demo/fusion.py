"""The demo's fusion: `configs/paper/fusion.py` with half the hidden size and fewer steps.

Expected: the CCCs of the table in README.md; `real`: docs/ablations.md.
Hardware: two CPU cores; README.md says how long the whole demo took.

`python launch.py demo --workdir=runs/demo` prepares the data and runs this command:

    python launch.py train --config=configs/demo/fusion.py:synthetic --workdir=runs/demo/fusion \\
        --config.data.features=runs/demo/features --config.seed=0

Variants: `synthetic` (default), valence and arousal; `real`, the emotions of RAVDESS takes; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import fusion

VARIANTS = ("synthetic", "real", "smoke")


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = fusion.get_config()
    config.steps, config.log_every, config.eval_every = 200, 10, 50
    config.optimizer.learning_rate = 2e-3
    config.data.update(sequence_length=250, sequence_hop=50, delay=1.0, eval_batch=4)
    config.data.batch.sequences = 8
    config.model.fusion_args.features = config.model.temporal_args.features = 64
    config.model.dtype = "float32"
    if variant == "real":
        config.data.update(sequence_length=19, sequence_hop=19, delay=0.0, eval_batch=16)
        config.data.batch.sequences = 16
        config.model.num_classes = 8
        config.best_metric = "dev/uar"
    if variant == "smoke":
        config.data.update(sequence_length=50, sequence_hop=25, eval_batch=8)
        return common.smoke(config)
    return config
