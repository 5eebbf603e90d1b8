"""Encoders fine-tuned end to end against cached features; the rows differ only in what trains.

The first row freezes both encoders, so it continues the run on cached features for the same number of steps. The cells
train from frames, one run after another, in the loop of `launch.py train`.

Expected: not measured. Hardware: that of the experiment; two CPU cores for `demo`.

    python launch.py sweep --config=configs/ablations/end_to_end.py --workdir=runs/end_to_end \\
        --config.fusion=runs/fusion --config.data.clips=DATA/recola

Variants: default (configs/paper/end_to_end.py); `demo` and `smoke`, those of configs/demo/end_to_end.py.
"""

from avemo.sweep import plan

EXPERIMENTS = {
    "": "configs/paper/end_to_end.py",
    "demo": "configs/demo/end_to_end.py:synthetic",
    "smoke": "configs/demo/end_to_end.py:smoke",
}
VARIANTS = tuple(EXPERIMENTS)


def get_config(variant: str = "") -> plan.Sweep:
    return plan.Sweep(
        title="End to end against cached features",
        experiment=EXPERIMENTS[variant],
        settings=[
            {"name": "encoders frozen", "optimizer.freeze": ("^visual/", "^audio/")},
            {"name": "visual fine-tuned", "optimizer.freeze": ("^audio/",)},
            {"name": "audio fine-tuned", "optimizer.freeze": ("^visual/",)},
            {"name": "both fine-tuned"},
        ],
        seeds=1 if variant == "smoke" else 2,
        reference="encoders frozen",
    )
