"""YAMNet: MobileNet-v1 over the same 0.96 s log-mel windows as VGGish, 20 times lighter, 1024-d embedding.

Source: the public TensorFlow definition (`models/research/audioset/yamnet`), trained on AudioSet; MobileNet-v1 is
Howard et al., arXiv 1704.04861. Layer names follow it: `layer1` is a 3x3 convolution, `layerN_depthwise` and
`layerN_pointwise` for N = 2..14 the separable ones, each convolution without bias, batch norm (epsilon 1e-4), ReLU.
The definition's batch norm has no scale: a converted `scale` is 1.

Its front end differs from VGGish's only in the offset of the logarithm, 0.001 instead of 0.01. The network takes
VGGish's windows and converts them to its own offset first.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from avemo.models.scaling import scale_width
from avemo.ops.convolution import ConvNorm

# Output channels and stride of layers 2..14.
SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1),
    (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

VGGISH_OFFSET, YAMNET_OFFSET = 0.01, 0.001  # in ln(mel + offset)


class YAMNet(nn.Module):
    """Log-mel windows to embeddings.

    Attributes:
      width: multiplies every channel count; 1 is the published net, with 1024-d embeddings.
      layers: number of layers from the input, at most 14.
      input_offset: offset of the logarithm in the windows; VGGish's by default.
      bn_epsilon: epsilon of BatchNorm.
      bn_momentum: share of the old running value that is kept.
      freeze_statistics: use and keep the running statistics in training too; the parameters still train.
        For the published weights, which have BatchNorm folded away.
      frozen_layers: number of layers from the input that keep their statistics, get no gradient and cost none.
      dtype: compute dtype; parameters and statistics are float32.
    """

    width: float = 1.0
    layers: int = 14
    input_offset: float = VGGISH_OFFSET
    bn_epsilon: float = 1e-4
    bn_momentum: float = 0.9
    freeze_statistics: bool = False
    frozen_layers: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, windows: Float[Array, "b 96 64"], train: bool = False) -> Float[Array, "b d"]:
        """Maps windows ln(mel + offset), time by band, to the float32 mean over the last feature map."""
        unit = functools.partial(
            ConvNorm,
            epsilon=self.bn_epsilon,
            momentum=self.bn_momentum,
            dtype=self.dtype,
        )
        mel = jnp.maximum(jnp.exp(windows.astype(jnp.float32)) - self.input_offset, 0.0)
        x = jnp.log(mel + YAMNET_OFFSET).astype(self.dtype)[..., None]
        train = train and not self.freeze_statistics
        trained = train and self.frozen_layers < 1
        x = unit(scale_width(32, self.width), (3, 3), (2, 2), name="layer1")(x, trained)  # 48×32×32
        for number, (channels, stride) in enumerate(SEPARABLE[: self.layers - 1], start=2):
            if self.frozen_layers == number - 1:
                x = lax.stop_gradient(x)
            trained = train and self.frozen_layers < number
            x = unit(x.shape[-1], (3, 3), (stride, stride), depthwise=True, name=f"layer{number}_depthwise")(x, trained)
            x = unit(scale_width(channels, self.width), name=f"layer{number}_pointwise")(x, trained)
        return x.astype(jnp.float32).mean(axis=(1, 2))  # the mean over 3×2×1024
