"""Every fusion strategy on the same data, budget and seeds, against the paper's model-level fusion (2103.09154, P).

Cached features come from `launch.py extract`.

Expected: measured for `demo`, `real`, `results` (docs/ablations.md, docs/results.md); not for the default.
Hardware: two CPU cores for those three, minutes.

    python launch.py sweep --config=configs/ablations/fusion.py --workdir=runs/ablation --config.data.features=FEATURES

Variants: default (the sizes of configs/paper/fusion.py); `demo` (the demo's sizes); `real` (the demo's RAVDESS takes,
emotions); `results` (the takes as in docs/results.md); `results-alone` (of `results`, only late fusion, model-level
fusion and each modality alone); `smoke` (one step).
"""

from avemo.models.fusion import FUSIONS
from avemo.sweep import plan

EXPERIMENTS = {
    "": "configs/paper/fusion.py",
    "demo": "configs/demo/fusion.py:synthetic",
    "real": "configs/demo/fusion.py:real",
    "results": "configs/results/fusion.py",
    "results-alone": "configs/results/fusion.py",
    "smoke": "configs/demo/fusion.py:smoke",
}
VARIANTS = tuple(EXPERIMENTS)


# On takes, late fusion combines two models that each learn alone; a single modality has nothing to drop.
_DROPPED = {"late": 1.0, "audio": 0.0, "visual": 0.0}
RESULTS = [
    {"name": name, "model.fusion": name, **({"model.modality_dropout": _DROPPED[name]} if name in _DROPPED else {})}
    for name in FUSIONS
]


def get_config(variant: str = "") -> plan.Sweep:
    alone = [setting for setting in RESULTS if setting["name"] in {*_DROPPED, "model_level"}]
    settings = {"results": RESULTS, "results-alone": alone}
    return plan.Sweep(
        title="Fusion strategies",
        experiment=EXPERIMENTS[variant],
        settings=settings.get(variant) or plan.grid({"model.fusion": tuple(FUSIONS)}),
        seeds=2 if variant == "smoke" else 5,
        reference="late" if variant == "results-alone" else "model_level",
    )
