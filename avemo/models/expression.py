"""Facial expression networks, the teacher and every student: trunk, neck, descriptor, and two linear heads.

The teacher for faces of 140 px, 15,556,008 parameters (reference thesis, second hand):

    images 140×140×3 ─ Inception-ResNet-v1 to `mixed_7a` 3×3×1792 ─ 1×1 convolution 512
      ─ dense block, 5 layers of growth 64: 832 ─ 1×1 convolution 128 ─ global average pool: descriptor 128
      ─┬─ FEC embedding 32
       └─ AffectNet logits 8

A student is another config: another trunk, another neck, other numbers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Num

from avemo.models.compact import MobileNetV2
from avemo.models.dense_block import DenseBlock
from avemo.models.densenet import DenseNet
from avemo.models.from_config import module_fields, network_fields
from avemo.models.inception_resnet import InceptionResNetV1
from avemo.models.mobilenet import MobileNetV1
from avemo.ops.batch_norm import BatchNorm
from avemo.ops.convolution import ConvNorm
from avemo.ops.linear import Dtype, statistics_dtype
from avemo.ops.unit_norm import l2_normalise
from media.errors import UserError, unknown
from media.registry import Registry

TRUNKS: Registry[Callable] = Registry("expression network")
TRUNKS.register("inception_resnet_v1")(InceptionResNetV1)
TRUNKS.register("mobilenet_v1")(MobileNetV1)
TRUNKS.register("densenet201")(DenseNet)
TRUNKS.register("compact")(MobileNetV2)

# The dense neck would outweigh a light trunk, and in DenseNet follow one dense block with another.
_DEFAULT_NECKS = {
    "inception_resnet_v1": "dense",
    "mobilenet_v1": "dense",
    "densenet201": "project",
    "compact": "project",
}

# Fields of the config by the attribute that they set.
_NECK_FIELDS = {"descriptor_dim": "descriptor_dim", "neck_bn_epsilon": "bn_epsilon"}
_DENSE_NECK_FIELDS = {
    "neck_channels": "channels",
    "dense_layers": "layers",
    "dense_growth": "growth",
    "dense_bottleneck": "bottleneck",
    "dense_dropout": "dropout",
}
_NET_FIELDS = ("num_classes", "embedding_dim", "unit_norm_embedding", "freeze_trunk", "freeze_statistics", "grey")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as OpenCV makes a picture grey

# Attributes of trunk classes that are shared with the neck, or that only the whole published network has.
_NOT_THE_TRUNKS = {"dtype", "bn_momentum", "whole", "embedding_dim", "dropout"}


class DenseNeck(nn.Module):
    """The teacher's neck: 1×1 convolution, dense block, 1×1 convolution; both convolutions with bias, BN and ReLU."""

    descriptor_dim: int = 128
    channels: int = 512
    layers: int = 5
    growth: int = 64
    bottleneck: int = 4
    dropout: float = 0.0
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        """Maps a feature map to `descriptor_dim` channels."""
        norm_args: dict[str, Any] = {"epsilon": self.bn_epsilon, "momentum": self.bn_momentum, "dtype": self.dtype}
        unit: Callable[..., nn.Module] = functools.partial(ConvNorm, use_bias=True, **norm_args)
        norm = functools.partial(BatchNorm, **norm_args)
        block = DenseBlock(self.layers, self.growth, self.bottleneck, norm, self.dropout, self.dtype, name="denseblock")
        x = unit(self.channels, name="reduce")(x, train)  # 512
        x = block(x, train)  # 512 + 5 · 64 = 832
        return unit(self.descriptor_dim, name="project")(x, train)  # 128


class ProjectNeck(nn.Module):
    """A 1×1 convolution, BN and ReLU to `descriptor_dim`: the neck of light students."""

    descriptor_dim: int = 128
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        """Maps a feature map to `descriptor_dim` channels."""
        return ConvNorm(
            self.descriptor_dim,
            use_bias=True,
            epsilon=self.bn_epsilon,
            momentum=self.bn_momentum,
            dtype=self.dtype,
            name="project",
        )(x, train)


class ExpressionNet(nn.Module):
    """A face crop to its descriptor, its FEC embedding and its class logits.

    Attributes:
      trunk, neck: modules called with (x, train).
      num_classes: length of `logits`.
      embedding_dim: length of `embedding`.
      unit_norm_embedding: put the embedding on the unit sphere.
      freeze_trunk: the trunk runs in inference mode, keeps its running statistics, and gets no gradient. An optimizer
        with weight decay must still exclude it.
      freeze_statistics: the trunk uses and keeps its running statistics, but its parameters train. For
        weights with BatchNorm folded away (`faceres`), and for fine-tuning with small batches.
      grey: colour is taken from the pictures, so that a network trained on grey faces sees grey faces everywhere.
    """

    trunk: nn.Module
    neck: nn.Module
    num_classes: int = 8
    embedding_dim: int = 32
    unit_norm_embedding: bool = True
    freeze_trunk: bool = False
    freeze_statistics: bool = False
    grey: bool = False
    dtype: Dtype = jnp.float32

    def setup(self):  # noqa: D102
        # At least float32, which costs nothing here: losses read differences of embeddings and of logits.
        inside = statistics_dtype(self.dtype)
        self.embedding_head = nn.Dense(self.embedding_dim, dtype=inside)
        self.expression_head = nn.Dense(self.num_classes, dtype=inside)

    def __call__(self, images: Num[Array, "b h w 3"], train: bool) -> dict[str, jax.Array]:
        """Runs the network.

        Args:
          images: uint8 or float, RGB, 0..255; the trunk scales them as its weights expect.
          train: use and update batch statistics; apply dropout, which needs the rng `dropout` if its rate is above 0.

        Returns:
          float32: `descriptor` [B, descriptor_dim] ≥ 0, `embedding` [B, embedding_dim], `logits` [B, num_classes].
        """
        if self.grey:
            luma = (images.astype(jnp.float32) * jnp.array(_LUMA)[None, None, None]).sum(-1, keepdims=True)
            images = jnp.broadcast_to(luma, images.shape)
        features = self.trunk(images, train and not (self.freeze_trunk or self.freeze_statistics))
        if self.freeze_trunk:
            features = lax.stop_gradient(features)
        self.sow("intermediates", "features", features)
        x = self.neck(features, train)
        descriptor = x.astype(jnp.float32).mean(axis=(1, 2))
        wide = descriptor.astype(statistics_dtype(self.dtype))
        embedding = self.embedding_head(wide).astype(jnp.float32)
        logits = self.expression_head(wide).astype(jnp.float32)
        if self.unit_norm_embedding:
            embedding = l2_normalise(embedding)
        return {"descriptor": descriptor, "embedding": embedding, "logits": logits}


def build(config: Mapping[str, Any]) -> ExpressionNet:
    """Returns the expression network that a config describes.

    Args:
      config: `name` (one of `TRUNKS`) and any of: `num_classes` 8, `embedding_dim` 32, `descriptor_dim` 128,
        `unit_norm_embedding` True, `freeze_trunk`, `freeze_statistics` and `grey` False, `dtype`, `bn_momentum`; `neck`
        ("dense" or "project"; the default depends on the trunk) with `neck_channels` 512, `dense_layers` 5,
        `dense_growth` 64, `dense_bottleneck` 4, `dense_dropout` 0, `neck_bn_epsilon` 1e-5; and the trunk's own
        numbers (`width`, `repeats_35`, …: the fields of its class).

    Raises:
      UserError: an unknown network, neck, dtype or key.
    """
    if "name" not in config:
        raise UserError(f"model.name is missing: set it to one of {', '.join(TRUNKS)}")
    name = config["name"]
    trunk_class = TRUNKS[name]
    trunk_fields = module_fields(trunk_class) - _NOT_THE_TRUNKS
    known = {*trunk_fields, *_NECK_FIELDS, *_DENSE_NECK_FIELDS, *_NET_FIELDS, "neck", "bn_momentum"}
    given = network_fields(f"field of model {name!r}", config, known, ignored=("image_size",))

    def chosen(names: Mapping[str, str]) -> dict[str, Any]:
        """The given fields of `names`, a mapping from fields of the config to attributes."""
        return {attribute: given[field] for field, attribute in names.items() if field in given}

    shared = chosen({"dtype": "dtype", "bn_momentum": "bn_momentum"})
    neck_name = given.get("neck") or _DEFAULT_NECKS[name]
    if neck_name == "dense":
        neck: nn.Module = DenseNeck(**shared, **chosen(_NECK_FIELDS), **chosen(_DENSE_NECK_FIELDS))
    elif neck_name == "project":
        neck = ProjectNeck(**shared, **chosen(_NECK_FIELDS))
    else:
        raise unknown("model.neck", neck_name, ("dense", "project"))
    trunk = trunk_class(**shared, **chosen({field: field for field in trunk_fields}))
    return ExpressionNet(trunk, neck, dtype=given["dtype"], **chosen({field: field for field in _NET_FIELDS}))
