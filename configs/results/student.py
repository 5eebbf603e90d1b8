"""Results: the compact student of FER+, distilled from `configs/results/teacher.py` on labelled and unlabelled faces.

The teacher's trunk cut after 11 of its 13 blocks (1.7 million parameters in all), a 3x3 map at 48 px. Beside FER+'s
labelled faces it sees faces nobody labelled: frames of GRID and RAVDESS and the rows of FER+ whose votes are of no use.
Without triplets: its embedding is the teacher's, distilled. Noisy: random erasing and RandAugment, which teacher and
student see alike.

    python launch.py train --config=configs/results/student.py --workdir=runs/results/runs/student_s0 \\
        --config.teacher=runs/results/runs/teacher --config.data.faces=DATA/fer \\
        --config.data.unlabelled=DATA/fer_unlabelled,DATA/frames --config.model.init_from=WEIGHTS

Variants: `alone` is the same student without teacher and unlabelled faces; `smoke`.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import student
from configs.results import teacher


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
