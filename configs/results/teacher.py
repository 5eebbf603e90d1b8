"""Results: the expression teacher on FER+, fine-tuned from a face-recognition trunk.

The trunk is MobileNet-v1 with VGGFace2 weights (`faceres-deep`) at 48 px, FER+'s own size. FaceNet's
Inception-ResNet-v1 is not used because its published weights were not available. The published BatchNorm was folded
into the convolutions; `avemo.models.pretrained --statistics` restores it from these faces. Every layer trains, on the
raters' votes and on triplets made from the votes. All choices were made on `dev`, a twentieth of FER+'s training part;
`test` is FER+'s validation part.

Expected: accuracy 0.804 [0.791, 0.817] on eight classes (docs/results.md). Hardware: two CPU cores, 51 minutes.

    python launch.py train --config=configs/results/teacher.py --workdir=runs/results/runs/teacher \\
        --config.data.faces=DATA/fer --config.data.triplets=DATA/fer_triplets --config.model.init_from=WEIGHTS

Variants: `faces` learns from the votes alone; `frozen` keeps BatchNorm's published statistics; `robust` is for other
corpora, with balanced classes and the noisy student's distortions; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import teacher

VARIANTS = ("", "faces", "frozen", "robust", "smoke")


def recipe(config: ConfigDict, variant: str = "") -> ConfigDict:
    """Sets what teacher and student share: pictures, trunk, optimizer and votes."""
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
    config.model.update(name="mobilenet_v1", neck="project", dtype="float32")
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
