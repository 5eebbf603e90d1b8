"""Results: the expression teacher on FER+, from a face-recognition trunk, for two CPU cores.

MobileNet-v1 with VGGFace2 weights (`faceres-deep`) in place of FaceNet's Inception-ResNet-v1, whose published weights
could not be had; 48 px, what FER+ has. Its BatchNorm was folded away and got statistics of these faces again
(`--statistics` of `avemo.models.pretrained`). All of it trains: on the raters' votes, and on triplets made from the
votes. Every choice was made on `dev`, a twentieth of FER+'s training part; `test` is its validation part.

    python launch.py train --config=configs/results/teacher.py --workdir=runs/results/runs/teacher \\
        --config.data.faces=DATA/fer --config.data.triplets=DATA/fer_triplets --config.model.init_from=WEIGHTS

Variants: `faces` learns from the votes alone; `frozen` leaves BatchNorm's statistics as they came; `robust` is for
other corpora: every class equally often, pictures distorted as the noisy student's are; `smoke`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import teacher


def recipe(config: ConfigDict, variant: str = "") -> ConfigDict:
    """Sets what teacher and student share: the pictures, the trunk's kind, the optimizer, the votes."""
    config.steps, config.log_every, config.eval_every = 3600, 50, 600
    config.data.batch.update(faces=64, triplets=8)
    config.data.eval_batch = 128
    config.data.augment.update(crop=0.15, colour=0.2)
    config.optimizer.update(name="adam", learning_rate=1e-3, schedule="cosine", warmup=0.05, clip_norm=1.0)
    config.ema = 0.99
    config.loss.update(labels="votes", ce_weight=1.0, fec_weight=0.5)
    config.model.image_size = 48
    for field in ("repeats_35", "repeats_17", "width"):  # of the paper's trunk
        del config.model[field]
    config.model.update(name="mobilenet_v1", neck="project")
    if variant == "faces":
        config.data.batch.triplets, config.loss.fec_weight = 0, 0.0
    if variant == "robust":
        config.data.balanced = True
        config.data.augment.update(crop=0.3, colour=0.4, erase=0.25, operations=2, magnitude=0.5)
    if variant == "smoke":
        config.data.batch.faces, config.data.batch.triplets, config.data.eval_batch = 8, 8, 8
        return common.smoke(config)
    return config


def get_config(variant: str = "") -> ConfigDict:
    config = recipe(teacher.get_config(), variant)
    config.model.blocks = 13
    if variant == "frozen":
        config.model.freeze_statistics = True
    return config
