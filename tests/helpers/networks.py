"""Face networks narrow enough for a test, with reproducible random weights."""

import jax.numpy as jnp

from avemo.models import expression
from benchmarks.parity import visual_cases, weights

SMALL = {
    "inception_resnet_v1": (
        {"width": 0.25, "repeats_35": 1, "repeats_17": 1, "neck_channels": 16, "dense_layers": 2, "dense_growth": 8}, 80
    ),
    "mobilenet_v1": ({"width": 0.25, "blocks": 3, "neck_channels": 16, "dense_layers": 1, "dense_growth": 8}, 32),
    "densenet201": ({"width": 0.25, "layers": (1, 2)}, 32),
    "compact": ({"width": 0.5, "stages": 3, "last_features": 32}, 32),
}  # fmt: skip


def small(name, size=None, **changes):
    numbers, default = SMALL[name]
    net = expression.build({"name": name, "num_classes": 5, "descriptor_dim": 24, **numbers, **changes})
    images = jnp.asarray(visual_cases.faces(4, size or default))
    return net, weights.variables(net, images, seed=0), images
