"""Encoders fine-tuned end to end against cached features: what trains, everything else the same.

The first row freezes both encoders, and so is the run on cached features gone on for as many steps. The cells train
from frames, one run after another (`launch.py train`'s own loop). Variants: default (configs/paper/end_to_end.py),
`demo`, `smoke`.

    python launch.py sweep --config=configs/ablations/end_to_end.py --workdir=runs/end_to_end \\
        --config.fusion=runs/fusion --config.data.clips=DATA/recola
"""

from avemo.sweep import plan

EXPERIMENTS = {
    "": "configs/paper/end_to_end.py",
    "demo": "configs/demo/end_to_end.py:synthetic",
    "smoke": "configs/demo/end_to_end.py:smoke",
}


def get_config(variant: str = "") -> plan.Sweep:
    return plan.Sweep(
        title="End to end against cached features",
        experiment=plan.variant_of(EXPERIMENTS, variant),
        settings=[
            {"name": "encoders frozen", "optimizer.freeze": ("^visual/", "^audio/")},
            {"name": "visual fine-tuned", "optimizer.freeze": ("^audio/",)},
            {"name": "audio fine-tuned", "optimizer.freeze": ("^visual/",)},
            {"name": "both fine-tuned"},
        ],
        seeds=1 if variant == "smoke" else 2,
        reference="encoders frozen",
    )
