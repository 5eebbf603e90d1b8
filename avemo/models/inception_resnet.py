"""Inception-ResNet-v1, the FaceNet trunk (Szegedy et al., 1602.07261; VGGFace2 weights by facenet-pytorch).

Layers, widths, residual scales and BatchNorm epsilon follow facenet-pytorch's `InceptionResnetV1`, whose module names
are kept (`repeat_1.0.branch1.1.conv.weight` there is `repeat_1_0/branch1_1/conv/kernel` here). The paper's teacher
uses the trunk up to `mixed_7a` (second hand: reference thesis); the whole network is here for parity and for FaceNet
embeddings. The outputs of all stages are sown as `stages`, a dict by facenet-pytorch's names, in `intermediates`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from avemo.models.scaling import scale_images, scale_width
from avemo.ops.batch_norm import BatchNorm
from avemo.ops.branches import Branches, run_branches
from avemo.ops.convolution import Conv, ConvNorm
from avemo.ops.dropout import Dropout
from avemo.ops.linear import Dtype, statistics_dtype
from avemo.ops.pooling import max_pool
from avemo.ops.unit_norm import l2_normalise
from media.errors import UserError

# The smallest image for which every unpadded stage up to mixed_7a has an output: 75→37→35→35→17→17→15→7→3→1.
MIN_IMAGE_SIZE = 75

# The branches of each block: (features, kernel height, kernel width) per convolution.
BLOCK_35 = (((32, 1, 1),), ((32, 1, 1), (32, 3, 3)), ((32, 1, 1), (32, 3, 3), (32, 3, 3)))
MIXED_6A = (((384, 3, 3),), ((192, 1, 1), (192, 3, 3), (256, 3, 3)))
BLOCK_17 = (((128, 1, 1),), ((128, 1, 1), (128, 1, 7), (128, 7, 1)))
MIXED_7A = (((256, 1, 1), (384, 3, 3)), ((256, 1, 1), (256, 3, 3)), ((256, 1, 1), (256, 3, 3), (256, 3, 3)))
BLOCK_8 = (((192, 1, 1),), ((192, 1, 1), (192, 1, 3), (192, 3, 1)))
SCALE_35, SCALE_17, SCALE_8 = 0.17, 0.10, 0.20


class Residual(nn.Module):
    """Inception branches, joined and projected by a 1×1 convolution with bias, scaled and added to the input."""

    branches: Branches
    scale: float
    unit: Callable[..., nn.Module]
    dtype: Dtype
    final_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H, W, C] for [B, H, W, C]."""
        joined = jnp.concatenate(run_branches(self, self.branches, self.unit, x, train), axis=-1)
        x = x + self.scale * Conv(x.shape[-1], dtype=self.dtype, name="conv2d")(joined)
        return nn.relu(x) if self.final_relu else x


class Reduction(nn.Module):
    """Inception branches that end in an unpadded 3×3 convolution of stride 2, joined with a max pool of the input."""

    branches: Branches
    unit: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, (H−1)//2, (W−1)//2, sum of the branches' features + C]."""
        last = {"strides": (2, 2), "padding": "VALID"}
        joined = run_branches(self, self.branches, self.unit, x, train, last)
        return jnp.concatenate([*joined, max_pool(x, 3, 2)], axis=-1)


class InceptionResNetV1(nn.Module):
    """The trunk to `mixed_7a`, or with `whole=True` the full FaceNet network.

    Attributes:
      width: multiplies every channel count; 1 is the published network.
      repeats_35, repeats_17, repeats_8: residual blocks at each resolution; 5, 10, 5 published.
      whole: also run the block-8 part, the average pool, the 512-d linear layer and its BatchNorm.
      embedding_dim: of the whole network.
      bn_epsilon, bn_momentum: 1e-3 and (1 − PyTorch's 0.1) as published.
      dropout: before the linear layer of the whole network; 0.6 in facenet-pytorch.
    """

    width: float = 1.0
    repeats_35: int = 5
    repeats_17: int = 10
    repeats_8: int = 5
    whole: bool = False
    embedding_dim: int = 512
    bn_epsilon: float = 1e-3
    bn_momentum: float = 0.9
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Runs the network.

        Args:
          images: [B, H, W, 3] uint8 or float, RGB, 0..255; scaled inside to (x − 127.5) / 128. H, W ≥ 75.
          train: use and update batch statistics.

        Returns:
          [B, h, w, 1792] feature map of `mixed_7a` (3×3 at 140 px), or with `whole` the [B, 512] unit-norm float32
          FaceNet embedding.

        Raises:
          UserError: the images are too small for the unpadded stages.
        """
        if min(images.shape[1:3]) < MIN_IMAGE_SIZE:
            height, width = images.shape[1:3]
            raise UserError(
                f"model.image_size: inception_resnet_v1 needs images of at least {MIN_IMAGE_SIZE} px, got "
                f"{height} by {width}; set data.image_size larger"
            )
        unit = functools.partial(ConvNorm, epsilon=self.bn_epsilon, momentum=self.bn_momentum, dtype=self.dtype)
        c = functools.partial(scale_width, width=self.width)
        stages = {}

        def stage(name: str, x: jax.Array) -> jax.Array:
            stages[name] = x
            return x

        def conv(name: str, features: int, kernel: int, stride: int, padding: str, x: jax.Array) -> jax.Array:
            layer = unit(c(features), (kernel, kernel), (stride, stride), padding, name=name)
            return stage(name, layer(x, train))

        def residual(name: str, branches: Branches, scale: float, x: jax.Array, final_relu: bool = True) -> jax.Array:
            return Residual(self._scaled(branches), scale, unit, self.dtype, final_relu, name=name)(x, train)

        def repeat(name: str, count: int, branches: Branches, scale: float, x: jax.Array) -> jax.Array:
            for i in range(count):
                x = residual(f"{name}_{i}", branches, scale, x)
            return stage(name, x)

        def reduce(name: str, branches: Branches, x: jax.Array) -> jax.Array:
            return stage(name, Reduction(self._scaled(branches), unit, name=name)(x, train))

        # The outputs in comments are those for 140 px.
        x = scale_images(images, (127.5,), (128.0,), self.dtype)  # 140×140×3
        x = conv("conv2d_1a", 32, 3, 2, "VALID", x)  # 69×69×32
        x = conv("conv2d_2a", 32, 3, 1, "VALID", x)  # 67×67×32
        x = conv("conv2d_2b", 64, 3, 1, "SAME", x)  # 67×67×64
        x = stage("maxpool_3a", max_pool(x, 3, 2))  # 33×33×64
        x = conv("conv2d_3b", 80, 1, 1, "SAME", x)  # 33×33×80
        x = conv("conv2d_4a", 192, 3, 1, "VALID", x)  # 31×31×192
        x = conv("conv2d_4b", 256, 3, 2, "VALID", x)  # 15×15×256
        x = repeat("repeat_1", self.repeats_35, BLOCK_35, SCALE_35, x)  # 15×15×256
        x = reduce("mixed_6a", MIXED_6A, x)  # 7×7×896
        x = repeat("repeat_2", self.repeats_17, BLOCK_17, SCALE_17, x)  # 7×7×896
        x = reduce("mixed_7a", MIXED_7A, x)  # 3×3×1792
        if not self.whole:
            self.sow("intermediates", "stages", stages)
            return x

        x = repeat("repeat_3", self.repeats_8, BLOCK_8, SCALE_8, x)  # 3×3×1792
        x = stage("block8", residual("block8", BLOCK_8, 1.0, x, final_relu=False))  # 3×3×1792
        x = stage("avgpool_1a", x.astype(statistics_dtype(self.dtype)).mean(axis=(1, 2)))  # 1792
        x = Dropout(self.dropout, deterministic=not train)(x)
        linear = nn.Dense(self.embedding_dim, use_bias=False, dtype=self.dtype, name="last_linear")
        x = stage("last_linear", linear(x.astype(self.dtype)))  # 512
        norm = BatchNorm(self.bn_epsilon, self.bn_momentum, statistics_dtype(self.dtype), name="last_bn")
        x = stage("last_bn", norm(x, train))  # 512
        self.sow("intermediates", "stages", stages)
        return l2_normalise(x)

    def _scaled(self, branches: Branches) -> Branches:
        """The branches with their channel counts scaled by `width`."""
        return tuple(
            tuple((scale_width(features, self.width), height, width) for features, height, width in branch)
            for branch in branches
        )
