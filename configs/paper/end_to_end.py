"""Fusion end to end: a trained fusion run and its encoders, fine-tuned together from frames and log-mel (A throughout).

No source that we could read says how much of the paper's system was trained jointly. Training starts from the run on
cached features, so the difference to that run is what fine-tuning the encoders adds. `optimizer.freeze` excludes
networks: `visual/`, `audio/`, `fusion/`. A finished run needs no other run; its three networks are in its `parts/`.

Expected: no figure is known. Not measured here at this size.
Hardware: estimated at eight chips or GPUs of 16 GB.

    python launch.py train --config=configs/paper/end_to_end.py --workdir=runs/end_to_end \\
        --config.fusion=runs/fusion --config.data.clips=DATA/recola

Variants: `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = common.base("end_to_end")
    config.fusion = ""  # run folder; its encoders are found from there
    config.steps, config.log_every, config.eval_every = 1000, 25, 250
    config.best_metric = "dev/ccc_mean"
    config.optimizer.update(name="adam", learning_rate=1e-5, schedule="cosine", warmup=0.1, clip_norm=1.0)
    config.data.update(
        clips="",
        batch={"clips": 8},  # 800 face crops
        sequence_length=100,  # frames: 4 s at 25 Hz
        sequence_hop=50,
        delay=2.8,  # s, as in the fusion run
        eval_batch=4,  # recordings
        eval_frames=128,
    )
    config.model = {
        "num_classes": 0,  # replaced by the fusion run's
        "dtype": "",  # compute dtype of all three networks; empty: that of each run
    }
    config.loss = {"per": "batch", "mse_weight": 0.0, "label_smoothing": 0.0}
    if variant == "smoke":
        config.data.update(sequence_length=10, sequence_hop=5, eval_frames=32)
        return common.smoke(config)
    return config
