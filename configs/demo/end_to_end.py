"""The demo's end-to-end fine-tuning: `configs/paper/end_to_end.py` with smaller batches and fewer steps.

Expected: not measured. Hardware: two CPU cores.

It is not a stage of `launch.py demo`; run it on a finished demo:

    python launch.py train --config=configs/demo/end_to_end.py --workdir=runs/end_to_end \\
        --config.fusion=runs/demo/fusion --config.data.clips=runs/demo/data/clips

Variants: `synthetic` (default); `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import end_to_end

VARIANTS = ("synthetic", "smoke")


def get_config(variant: str = "synthetic") -> ConfigDict:
    config = end_to_end.get_config()
    config.steps, config.log_every, config.eval_every = 60, 10, 20
    config.optimizer.learning_rate = 1e-4
    config.data.update(delay=1.0, eval_batch=4)
    config.data.batch.clips = 2
    if variant == "smoke":
        config.data.batch.clips = 8
        config.data.update(sequence_length=10, sequence_hop=5, eval_frames=32)
        return common.smoke(config)
    return config
