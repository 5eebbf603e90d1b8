"""Distillation: loss, temperature, unlabelled faces, student size, and the same student without a teacher.

The cells train on images, one run after another, in the loop of `launch.py train`. The score is the unweighted average
recall on dev. It needs a trained teacher and prepared faces.

Expected: measured for `demo` only (docs/ablations.md): 0.648 with the default loss, 0.480 without a teacher.
Hardware: two CPU cores for `demo`; otherwise that of the experiment.

    python launch.py sweep --config=configs/ablations/distillation.py --workdir=runs/distillation \\
        --config.teacher=runs/teacher --config.data.faces=DATA/affectnet --config.data.triplets=DATA/fec \\
        --config.data.unlabelled=DATA/unlabelled

Variants: default (configs/paper/student.py); `demo`, `real` and `smoke`, those of configs/demo/student.py.
"""

from avemo.sweep import plan

EXPERIMENTS = {
    "": "configs/paper/student.py",
    "demo": "configs/demo/student.py:synthetic",
    "real": "configs/demo/student.py:real",
    "smoke": "configs/demo/student.py:smoke",
}
VARIANTS = tuple(EXPERIMENTS)
LOSS = "loss.distillation"


def get_config(variant: str = "") -> plan.Sweep:
    no_logits, no_embedding = {f"{LOSS}.kd_weight": 0.0}, {f"{LOSS}.embedding_weight": 0.0}
    experiment = EXPERIMENTS[variant]
    batch = {"": 64, "smoke": 8}.get(variant, 16)  # unlabelled faces per step in the experiment
    return plan.Sweep(
        title="Distillation",
        experiment=experiment,
        settings=[
            {"name": "KD, T = 2"},
            {"name": "KD, T = 1", f"{LOSS}.temperature": 1.0},
            {"name": "KD, T = 4", f"{LOSS}.temperature": 4.0},
            {"name": "DKD", f"{LOSS}.logits": "dkd"},
            {"name": "logits only", **no_embedding},
            {"name": "embedding only", **no_logits},
            {"name": "RKD", f"{LOSS}.rkd_weight": 1.0, **no_logits, **no_embedding},
            {"name": "half the unlabelled faces a step", "data.batch.unlabelled": batch // 2},
            {"name": "no unlabelled faces", "data.batch.unlabelled": 0},
            {"name": "compact student", "model.name": "compact", "model.repeats_35": None, "model.repeats_17": None},
            {"name": "no teacher", **no_logits, **no_embedding},
        ],
        seeds=2 if variant == "smoke" else 3,
        reference="KD, T = 2",
    )
