"""DenseNet-201 (Huang et al., 1608.06993) as in torchvision: an alternative trunk for the student.

Names are torchvision's with `features.` dropped (`denseblock1/denselayer1/norm1`, `transition1/conv`, `norm5`).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.models.dense_block import DenseBlock
from avemo.models.scaling import scale_images, scale_width
from avemo.ops.batch_norm import BatchNorm
from avemo.ops.convolution import Conv
from avemo.ops.linear import Dtype
from avemo.ops.pooling import average_pool, max_pool

# torchvision's ImageNet statistics, on the 0..255 scale.
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class Transition(nn.Module):
    """BN-ReLU-1×1 to half the channels, and a 2×2 average pool."""

    norm: type[nn.Module] | functools.partial
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H // 2, W // 2, C // 2]."""
        features = x.shape[-1] // 2
        x = nn.relu(self.norm(name="norm")(x, train))
        x = Conv(features, use_bias=False, dtype=self.dtype, name="conv")(x)
        return average_pool(x, 2)


class DenseNet(nn.Module):
    """The convolutional part, through the last BatchNorm (`norm5`) and its ReLU.

    Attributes:
      layers: dense layers per block; 6, 12, 48, 32 in DenseNet-201.
      growth, bottleneck: 32 and 4.
      width: multiplies the 64 channels of the stem and the growth; 1 is the published network.
    """

    layers: Sequence[int] = (6, 12, 48, 32)
    growth: int = 32
    bottleneck: int = 4
    width: float = 1.0
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns the feature map [B, ~H/32, ~W/32, 1920] of `images` [B, H, W, 3], uint8 or float, RGB, 0..255."""
        norm = functools.partial(BatchNorm, epsilon=self.bn_epsilon, momentum=self.bn_momentum, dtype=self.dtype)
        growth = scale_width(self.growth, self.width, divisor=4)
        x = scale_images(images, MEAN, STD, self.dtype)
        padding = ((3, 3), (3, 3))
        stem = Conv(
            scale_width(64, self.width), (7, 7), (2, 2), padding, use_bias=False, dtype=self.dtype, name="conv0"
        )
        x = max_pool(nn.relu(norm(name="norm0")(stem(x), train)), 3, 2, padding=1)  # 56×56×64 for 224 px
        for i, layers in enumerate(self.layers, start=1):
            block = DenseBlock(layers, growth, self.bottleneck, norm, dtype=self.dtype, name=f"denseblock{i}")
            x = block(x, train)  # 56×56×256, 28×28×512, 14×14×1792, 7×7×1920
            if i < len(self.layers):
                x = Transition(norm, self.dtype, name=f"transition{i}")(x, train)  # 28×28×128, 14×14×256, 7×7×896
        return nn.relu(norm(name="norm5")(x, train))
