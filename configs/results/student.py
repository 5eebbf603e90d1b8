"""Results: the compact student of FER+, distilled from `configs/results/teacher.py` on labelled and unlabelled faces.

It is the teacher's trunk cut after 11 of its 13 blocks (1.7 million parameters in all), with a 3x3 map at 48 px. Its
unlabelled faces are frames of GRID and RAVDESS, and the FER+ pictures whose votes are unusable. It needs no triplets
because the teacher's embedding is distilled. Teacher and student see the same random erasing and RandAugment.

Expected: accuracy 0.792 [0.779, 0.804], mean of three seeds; 0.778 for `alone` (docs/results.md).
Hardware: two CPU cores; teacher and student together took 58 minutes.

    python launch.py train --config=configs/results/student.py --workdir=runs/results/runs/student_s0 \\
        --config.teacher=runs/results/runs/teacher --config.data.faces=DATA/fer \\
        --config.data.unlabelled=DATA/fer_unlabelled,DATA/frames --config.model.init_from=WEIGHTS

Variants: `alone` is the same student without teacher and unlabelled faces; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import student
from configs.results import teacher

VARIANTS = ("", "alone", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = teacher.recipe(student.get_config())
    config.model.blocks = 11
    config.steps, config.log_every, config.eval_every = 1000, 50, 500
    config.data.batch.update(faces=64, triplets=0, unlabelled=32)
    config.data.augment.update(erase=0.2, operations=1, magnitude=0.3)
    config.loss.fec_weight = 0.0
    if variant == "alone":
        config.data.batch.unlabelled = 0
        config.loss.distillation.update(kd_weight=0.0, embedding_weight=0.0)
    if variant == "smoke":
        config.data.batch.update(faces=8, unlabelled=8)
        config.data.eval_batch = 8
        return common.smoke(config)
    return config
