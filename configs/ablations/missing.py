"""Modality dropout and what stands in for an absent modality, for two fusions: does the fused checkpoint hold when the
sound or the face is gone? Read the columns `audio only` and `visual only`.

Variants as in configs/ablations/fusion.py.

    python launch.py sweep --config=configs/ablations/missing.py --workdir=runs/missing --config.data.features=FEATURES
"""

from avemo.sweep import plan
from configs.ablations.fusion import EXPERIMENTS


def get_config(variant: str = "") -> plan.Sweep:
    return plan.Sweep(
        title="Modality dropout and missing modalities",
        experiment=plan.variant_of(EXPERIMENTS, variant),
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
