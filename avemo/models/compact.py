"""The compact student for real time: MobileNetV2 (Sandler et al., 1801.04381) on 112 px faces.

The paper names no network; this choice is ours. As an expression network (neck "project", 32-d and 8-class heads)
it has 2,393,256 parameters and takes 83.5 M multiply-adds, that is 167 MFLOP, for a 112 px face
(`avemo.models.cost`).
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.models.scaling import scale_images, scale_width
from avemo.ops.convolution import ConvNorm
from avemo.ops.linear import Dtype

IMAGE_SIZE = 112

# Expansion, features, repeats and first stride of each stage, table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; the input is added where the shape allows."""

    features: int
    expansion: int
    stride: int
    unit: type[nn.Module] | functools.partial

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, ⌈H/stride⌉, ⌈W/stride⌉, features]."""
        channels = x.shape[-1]
        y = x
        if self.expansion != 1:
            y = self.unit(channels * self.expansion, name="expand")(y, train)
        strides = (self.stride, self.stride)
        y = self.unit(y.shape[-1], (3, 3), strides, depthwise=True, name="depthwise")(y, train)
        y = self.unit(self.features, activation=None, name="project")(y, train)
        return x + y if self.stride == 1 and channels == self.features else y


class MobileNetV2(nn.Module):
    """The convolutional part of MobileNetV2.

    Attributes:
      width: multiplies every channel count, the last one only if above 1, as in the paper.
      stages: number of stages, at most the published 7.
      last_features: features of the final 1×1 convolution.
    """

    width: float = 1.0
    stages: int = len(STAGES)
    last_features: int = 1280
    bn_epsilon: float = 1e-3
    bn_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns the feature map [B, ⌈H/32⌉, ⌈W/32⌉, 1280] of `images` [B, H, W, 3], uint8 or float, RGB, 0..255."""
        unit = functools.partial(
            ConvNorm,
            activation=nn.relu6,
            epsilon=self.bn_epsilon,
            momentum=self.bn_momentum,
            dtype=self.dtype,
        )
        c = functools.partial(scale_width, width=self.width)
        x = scale_images(images, (127.5,), (127.5,), self.dtype)
        x = unit(c(32), (3, 3), (2, 2), name="stem")(x, train)  # 56×56×32 for 112 px
        for i, (expansion, features, repeats, stride) in enumerate(STAGES[: self.stages], start=1):
            for j in range(repeats):
                block = InvertedResidual(c(features), expansion, stride if j == 0 else 1, unit, name=f"stage{i}_{j}")
                x = block(x, train)  # 56×56×16, 28×28×24, 14×14×32, 7×7×64, 7×7×96, 4×4×160, 4×4×320
        return unit(scale_width(self.last_features, max(1.0, self.width)), name="last")(x, train)
