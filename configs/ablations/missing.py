"""Modality dropout and what replaces an absent modality, for two fusions: does the fused checkpoint still work without
sound or face? Read the columns `audio only` and `visual only`.

Expected: not measured. Hardware: two CPU cores for `demo`.

    python launch.py sweep --config=configs/ablations/missing.py --workdir=runs/missing --config.data.features=FEATURES

Variants: as in configs/ablations/fusion.py.
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS

VARIANTS = tuple(EXPERIMENTS)


def get_config(variant: str = "") -> plan.Sweep:
    return plan.Sweep(
        title="Modality dropout and missing modalities",
        experiment=EXPERIMENTS[variant],
        settings=plan.grid(
            {
                "model.fusion": ("model_level", "gmu"),
                "model.modality_dropout": (0.0, 0.25, 0.5),
                "model.missing": ("zero", "token"),
            }
        ),
        seeds=2 if variant == "smoke" else 5,
        reference="fusion=model_level, modality_dropout=0.0, missing=zero",
    )
