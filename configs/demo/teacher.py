"""The demo's teacher: `configs/paper/teacher.py` at a quarter of the width and 80 px.

Expected: the accuracy below the table in README.md; 0.616 on FER+ for `pretrained` (docs/ablations.md); `real` is not
measured. None of these is a figure of the paper.
Hardware: two CPU cores; README.md says how long the whole demo took.

`python launch.py demo --workdir=runs/demo` prepares the data and runs this command:

    python launch.py train --config=configs/demo/teacher.py:synthetic --workdir=runs/demo/teacher \\
        --config.data.faces=runs/demo/data/affectnet --config.data.triplets=runs/demo/data/fec --config.seed=0

Variants: `synthetic` (default); `real`, FER+ faces and triplets from the raters' votes; `pretrained`, FER+ faces, with
the published face network of `model.init_from` frozen and the neck and heads trained on it; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import teacher

VARIANTS = ("synthetic", "real", "pretrained", "smoke")


def shrink(config: ConfigDict, variant: str) -> ConfigDict:
    """Sets the demo's numbers in the config of a teacher or student."""
    config.steps = 400 if variant == "real" else 160
    config.log_every, config.eval_every = 20, 80 if variant == "synthetic" else 100
    config.data.eval_batch = 128
    config.data.batch.faces, config.data.batch.triplets = 64, 8
    # Adam as in the thesis's text: three minutes from scratch, not thirteen epochs from VGGFace2 weights.
    config.optimizer.update(name="adam", learning_rate=3e-3, schedule="cosine", warmup=0.1, clip_norm=1.0)
    config.model.update(
        image_size=80, width=0.25, repeats_35=1, repeats_17=1, neck_channels=128, dense_layers=3, dense_growth=32
    )
    config.model.dtype = "float32"  # the same demo on every platform
    config.loss.ce_weight = 1.0
    if variant == "real":
        config.loss.labels = "votes"
    if variant == "pretrained":
        config.steps, config.log_every, config.eval_every = 120, 20, 120
        config.data.batch.update(faces=64, triplets=0)
        config.loss.update(labels="votes", fec_weight=0.0)
        for field in ("repeats_35", "repeats_17"):
            del config.model[field]
        config.model.update(name="mobilenet_v1", width=1.0, image_size=96, freeze_trunk=True)
    if variant == "smoke":
        config.data.batch.faces, config.data.batch.triplets, config.data.eval_batch = 8, 8, 8
        return common.smoke(config)
    return config


def get_config(variant: str = "synthetic") -> ConfigDict:
    return shrink(teacher.get_config(), variant)
