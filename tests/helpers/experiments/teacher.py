"""The demo's teacher with a face network of few layers, for tests of everything around the network.

It has what the paper's has: BatchNorm, depthwise, spatial and 1×1 convolutions, the dense neck, and both heads.
"""

from ml_collections import ConfigDict

from configs.demo import teacher

VARIANTS = ("smoke",)


def shrink(config: ConfigDict) -> ConfigDict:
    """Replaces the network of a teacher's or student's config."""
    for field in ("repeats_35", "repeats_17"):
        del config.model[field]
    config.model.update(
        {"name": "compact", "image_size": 32, "width": 0.25, "stages": 1, "last_features": 16, "neck": "dense"}
    )
    config.model.update(neck_channels=16, dense_layers=1, dense_growth=8)
    return config


def get_config(variant: str = "smoke") -> ConfigDict:
    return shrink(teacher.get_config(variant))
