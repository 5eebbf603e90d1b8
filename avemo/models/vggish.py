"""VGGish: the AudioSet audio network over 0.96 s log-mel windows.

Source: the public TensorFlow definition (`models/research/audioset/vggish`), Hershey et al., arXiv 1609.09430. Eleven
weight layers, 3×3 convolutions, SAME, ReLU: 64, pool, 128, pool, 256×2, pool, 512×2, pool, then the 6×4×512 map
flattened *in the order (H, W, C)* to 12,288 and three dense layers 4096, 4096, 128. 72,141,184 parameters at width 1.

Parameter names are those of the TensorFlow checkpoint with `/` as `_` (`conv3_1` for `vggish/conv3/conv3_1`), kernels
in the same layout (HWIO, [in, out]), so that its tensors map straight onto them.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from avemo.ops.convolution import Conv
from avemo.ops.dropout import Dropout
from avemo.ops.linear import Dense
from avemo.ops.pooling import max_pool
from media.errors import unknown

BLOCKS = (
    (("conv1", 64),),
    (("conv2", 128),),
    (("conv3_1", 256), ("conv3_2", 256)),
    (("conv4_1", 512), ("conv4_2", 512)),
)


class VGGish(nn.Module):
    """Log-mel windows to embeddings.

    Attributes:
      width: multiplies the convolutions' channels (1 is the published net).
      fc_dim: width of the two hidden dense layers.
      embedding_dim: D.
      final_activation: "none" as in the current public definition, "relu" as in its PyTorch port.
      dropout: rate after the hidden dense layers, for fine-tuning; 0 in the published net.
      dtype: compute dtype; parameters are float32.
    """

    width: float = 1.0
    fc_dim: int = 4096
    embedding_dim: int = 128
    final_activation: str = "none"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, windows: Float[Array, "b 96 64"], train: bool = False) -> Float[Array, "b d"]:
        """Maps natural log-mel windows, time by band, to float32 embeddings."""
        if self.final_activation not in ("none", "relu"):
            raise unknown("final_activation", self.final_activation, ("none", "relu"))
        x = windows.astype(self.dtype)[..., None]  # 96×64×1
        for block in BLOCKS:
            for name, channels in block:
                channels = max(1, round(self.width * channels))
                conv = Conv(channels, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.lecun_normal(), name=name)
                x = nn.relu(conv(x))
            x = max_pool(x, 2, 2)  # 48×32×64, 24×16×128, 12×8×256, 6×4×512
        x = x.reshape(x.shape[0], -1)  # 12,288
        for name in ("fc1_1", "fc1_2"):
            x = nn.relu(Dense(self.fc_dim, dtype=self.dtype, name=name)(x))
            x = Dropout(self.dropout, deterministic=not train)(x)  # 4096
        x = Dense(self.embedding_dim, dtype=self.dtype, name="fc2")(x).astype(jnp.float32)  # 128
        return nn.relu(x) if self.final_activation == "relu" else x
