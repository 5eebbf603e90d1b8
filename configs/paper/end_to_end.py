"""Fusion end to end: a trained fusion run and its encoders, fine-tuned together from frames and log-mel (A throughout).

How much of the paper's system was trained jointly is not stated in any source we could read. The start is the run on
cached features, so the difference to it is what fine-tuning the encoders adds; `optimizer.freeze` takes parts out of
it: `visual/`, `audio/`, `fusion/`. A finished run opens by itself; its three networks lie in `parts/` of its folder.

Expected: no figure is known. Not run by this project at this size. Hardware: eight chips or GPUs of 16 GB.

    python launch.py train --config=configs/paper/end_to_end.py --workdir=runs/end_to_end \\
        --config.fusion=runs/fusion --config.data.clips=DATA/recola
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    config = common.base("end_to_end")
    config.fusion = ""  # run folder; its encoders are found from there
    config.steps, config.log_every, config.eval_every = 1000, 25, 250
    config.best_metric = "dev/ccc_mean"
    config.optimizer.update(name="adam", learning_rate=1e-5, schedule="cosine", warmup=0.1, clip_norm=1.0)
    config.data.update(
        clips="",
        batch={"clips": 8},  # 800 pictures of faces
        sequence_length=100,  # frames: 4 s at 25 Hz
        sequence_hop=50,
        delay=2.8,  # s: that of the fusion run
        eval_batch=4,  # recordings
        eval_frames=128,
    )
    config.model = {
        "num_classes": 0,  # the fusion run's own; here for those who read the config
        "dtype": "",  # of the computation of all three networks; empty: each run's own
    }
    config.loss = {"per": "batch", "mse_weight": 0.0, "label_smoothing": 0.0}
    if variant == "smoke":
        config.data.update(sequence_length=10, sequence_hop=5, eval_frames=32)
        return common.smoke(config)
    return config
