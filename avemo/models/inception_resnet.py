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

from avemo.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    Dtype,
    l2_normalise,
    max_pool,
    scale_images,
    scale_width,
    statistics_dtype,
)
from avemo.ops.dropout import Dropout
from avemo.ops.pointwise import convolve_pointwise_by_each
from media.errors import UserError

# The smallest image for which every unpadded stage up to mixed_7a has an output: 75→37→35→35→17→17→15→7→3→1.
MIN_IMAGE_SIZE = 75

SCALE_35, SCALE_17, SCALE_8 = 0.17, 0.10, 0.20
NONE, HALF = (1, 1), (2, 2)


Branches = tuple[tuple[tuple[int, int, int], ...], ...]


def _run_branches(
    parent: nn.Module, branches: Branches, unit: Callable[..., nn.Module], x: jax.Array, train: bool, last: dict
) -> list[jax.Array]:
    """Runs Inception branches on `x`, as children of `parent`; their results in order.

    Args:
      parent: the module whose compact method calls this.
      branches: one tuple a branch of (features, kernel height, kernel width); a branch of one unit is named
        `branch0`, of several `branch1_0`, `branch1_1`, … as in facenet-pytorch.
      unit: makes a ConvNorm from features and kernel.
      x: [B, H, W, C].
      train: use and update batch statistics.
      last: further arguments of each branch's last unit.
    """
    names = [
        [f"branch{i}"] if len(branch) == 1 else [f"branch{i}_{j}" for j in range(len(branch))]
        for i, branch in enumerate(branches)
    ]
    heads = _run_heads(parent, branches, names, x, last)
    results = []
    for branch, units in zip(branches, names, strict=True):
        y = x
        for j, ((features, height, width), name) in enumerate(zip(branch, units, strict=True)):
            layer = unit(features, (height, width), name=name, **(last if j == len(branch) - 1 else {}))
            y = layer(heads[name], train, convolved=True) if name in heads else layer(y, train)
        results.append(y)
    return results


def _run_heads(
    parent: nn.Module, branches: Branches, names: list[list[str]], x: jax.Array, last: dict
) -> dict[str, jax.Array]:
    """Convolves `x` by all the 1×1 kernels that branches begin with; returns the results by name.

    Together their backward pass moves a quarter less of a block's traffic on a TPU (docs/cloud_tpu.md).
    """
    if parent.is_initializing():  # the units make their kernels
        return {}
    names = [
        units[0]
        for branch, units in zip(branches, names, strict=True)
        if branch[0][1:] == (1, 1) and not (last and len(branch) == 1)
    ]
    kernels = tuple(parent.variables["params"][name]["conv"]["kernel"][0, 0].astype(x.dtype) for name in names)
    return dict(zip(names, convolve_pointwise_by_each(x, kernels), strict=True))


class Residual(nn.Module):
    """Inception branches, joined and projected by a 1×1 convolution with bias, scaled and added to the input.

    `branches` as in `_run_branches`.
    """

    branches: Branches
    scale: float
    unit: Callable[..., nn.Module]
    dtype: Dtype
    final_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H, W, C] for [B, H, W, C]."""
        joined = _run_branches(self, self.branches, self.unit, x, train, {})
        y = Conv(x.shape[-1], dtype=self.dtype, name="conv2d")(jnp.concatenate(joined, axis=-1))
        x = x + self.scale * y
        return nn.relu(x) if self.final_relu else x


class Reduction(nn.Module):
    """Inception branches that end in an unpadded 3×3 convolution of stride 2, joined with a max pool of the input.

    `branches` as in `_run_branches`, but the last unit of each reduces; 1×1 units before it keep the size.
    """

    branches: Branches
    unit: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, (H−1)//2, (W−1)//2, sum of the branches' features + C]."""
        last = {"strides": HALF, "padding": "VALID"}
        joined = _run_branches(self, self.branches, self.unit, x, train, last)
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
        unit = functools.partial(
            ConvNorm,
            epsilon=self.bn_epsilon,
            momentum=self.bn_momentum,
            dtype=self.dtype,
        )
        c = functools.partial(scale_width, width=self.width)

        stages = {}

        def stage(name: str, x: jax.Array) -> jax.Array:
            stages[name] = x
            return x

        def repeat(name: str, count: int, branches: tuple, scale: float, x: jax.Array) -> jax.Array:
            for i in range(count):
                x = Residual(branches, scale, unit, self.dtype, name=f"{name}_{i}")(x, train)
            return stage(name, x)

        x = scale_images(images, (127.5,), (128.0,), self.dtype)
        x = stage("conv2d_1a", unit(c(32), (3, 3), HALF, "VALID", name="conv2d_1a")(x, train))
        x = stage("conv2d_2a", unit(c(32), (3, 3), NONE, "VALID", name="conv2d_2a")(x, train))
        x = stage("conv2d_2b", unit(c(64), (3, 3), name="conv2d_2b")(x, train))
        x = stage("maxpool_3a", max_pool(x, 3, 2))
        x = stage("conv2d_3b", unit(c(80), name="conv2d_3b")(x, train))
        x = stage("conv2d_4a", unit(c(192), (3, 3), NONE, "VALID", name="conv2d_4a")(x, train))
        x = stage("conv2d_4b", unit(c(256), (3, 3), HALF, "VALID", name="conv2d_4b")(x, train))

        thin = (c(32), 1, 1)
        block35 = ((thin,), (thin, (c(32), 3, 3)), (thin, (c(32), 3, 3), (c(32), 3, 3)))
        x = repeat("repeat_1", self.repeats_35, block35, SCALE_35, x)
        mixed_6a = (((c(384), 3, 3),), ((c(192), 1, 1), (c(192), 3, 3), (c(256), 3, 3)))
        x = stage("mixed_6a", Reduction(mixed_6a, unit, name="mixed_6a")(x, train))

        block17 = (((c(128), 1, 1),), ((c(128), 1, 1), (c(128), 1, 7), (c(128), 7, 1)))
        x = repeat("repeat_2", self.repeats_17, block17, SCALE_17, x)
        thin = (c(256), 1, 1)
        mixed_7a = (
            (thin, (c(384), 3, 3)),
            (thin, (c(256), 3, 3)),
            (thin, (c(256), 3, 3), (c(256), 3, 3)),
        )
        x = stage("mixed_7a", Reduction(mixed_7a, unit, name="mixed_7a")(x, train))
        if not self.whole:
            self.sow("intermediates", "stages", stages)
            return x

        block8 = (((c(192), 1, 1),), ((c(192), 1, 1), (c(192), 1, 3), (c(192), 3, 1)))
        x = repeat("repeat_3", self.repeats_8, block8, SCALE_8, x)
        x = stage("block8", Residual(block8, 1.0, unit, self.dtype, final_relu=False, name="block8")(x, train))
        x = stage("avgpool_1a", x.astype(statistics_dtype(self.dtype)).mean(axis=(1, 2)))
        x = Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.embedding_dim, use_bias=False, dtype=self.dtype, name="last_linear")(x.astype(self.dtype))
        x = stage("last_linear", x)
        norm = BatchNorm(
            self.bn_epsilon,
            self.bn_momentum,
            statistics_dtype(self.dtype),
            name="last_bn",
        )
        x = stage("last_bn", norm(x, train))
        self.sow("intermediates", "stages", stages)
        return l2_normalise(x)
