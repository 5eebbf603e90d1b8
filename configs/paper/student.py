"""Student: self-distillation of the teacher with additional unlabelled faces (arXiv 2103.09154, P; recipe assumed, A).

The student has the teacher's architecture and learns from the frozen teacher. It keeps the supervised losses where
labels exist. On every image it adds T² · KL(teacher ‖ student) on tempered logits and a distance between embeddings.
The unlabelled set is any folder of face crops or videos, prepared by `python -m data_prep unlabelled`.

Expected: 61.6 % on AffectNet's eight classes, 65.4 % on seven (P, leaderboard entry). Not measured here.
Hardware: estimated at twice the teacher's time on the same machine.

    python launch.py train --config=configs/paper/student.py --workdir=runs/student --config.teacher=runs/teacher \\
        --config.data.faces=DATA/affectnet --config.data.triplets=DATA/fec --config.data.unlabelled=DATA/unlabelled

Variants: `noisy` adds Noisy Student's noise to the images (arXiv 1911.04252): RandAugment and random erasing, and the
teacher sees the same distorted images; `v5e` as the teacher's; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.paper import teacher

VARIANTS = ("", "noisy", "v5e", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = teacher.get_config(variant)
    config.task = "student"
    config.teacher = ""  # run folder
    if variant != "v5e":
        config.model.dtype = "float32"  # bfloat16 was not shown to be safe for it (docs/precision.md)
    config.data.unlabelled = ""
    config.data.batch.unlabelled = 64
    config.loss.distillation = {  # A throughout
        "logits": "kd",  # or dkd
        "kd_weight": 1.0,
        "temperature": 2.0,
        "dkd_alpha": 1.0,
        "dkd_beta": 8.0,
        "embedding": "l2",
        "embedding_weight": 1.0,
        "rkd_weight": 0.0,
    }
    if variant == "noisy":
        config.data.augment.update(erase=0.25, operations=2, magnitude=0.5)  # A: milder than on ImageNet (0.9)
    if variant == "smoke":
        config.data.batch.unlabelled = 8
        return common.smoke(config)
    return config
