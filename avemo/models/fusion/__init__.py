"""Fusion strategies, by name: the frames of N named streams to one joint sequence.

Every entry maps N arrays of frames `[B, T, D_n]`, then N masks bool `[B, T]`, to `(fused [B, T, D] float32, extras)`.
The names are its field `inputs`, by default (audio, visual): `(audio, visual, audio_mask, visual_mask)`. A frame whose
mask is False has no influence on any output, whatever it holds. A missing stream is masked throughout.
`extras["gates"]` [B, T, N] is the share of each stream, for strategies that have one. Recurrent entries also take
`mask` [B, T] (frames of the sequence, padding at the end) and `carry`, and return `extras["carry"]`.

Class attributes: `streams` is True if frame t needs no later frame, so that chunks equal the whole. `level` is
"feature"; "decision" for `late`, which combines the *predictions* of the streams: `AudioVisual` then runs a temporal
model and heads per stream and passes their outputs; or "expert" for `experts`, whose inputs are the encoders' own
predictions: it is the whole network.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from avemo.models.from_config import construct
from avemo.models.fusion.attention import Bottleneck, CrossAttention, JointCrossAttention
from avemo.models.fusion.basic import Concat, Late, ModelLevel, Only
from avemo.models.fusion.experts import Experts
from avemo.models.fusion.gated import AttentionPool, FiLM, GatedMultimodalUnit, LeaderFollower
from avemo.models.fusion.tensor import LowRankTensorFusion, TensorFusion
from media.registry import Registry

FUSIONS: Registry[Callable] = Registry("fusion")
FUSIONS.register("audio")(partial(Only, stream="audio"))
FUSIONS.register("visual")(partial(Only, stream="visual"))
FUSIONS.register("concat")(Concat)
FUSIONS.register("late")(Late)
FUSIONS.register("model_level")(ModelLevel)
FUSIONS.register("gmu")(GatedMultimodalUnit)
FUSIONS.register("film")(FiLM)
FUSIONS.register("tfn")(TensorFusion)
FUSIONS.register("lmf")(LowRankTensorFusion)
FUSIONS.register("cross_attention")(CrossAttention)
FUSIONS.register("joint_cross_attention")(JointCrossAttention)
FUSIONS.register("leader_follower")(LeaderFollower)
FUSIONS.register("attention_pool")(AttentionPool)
FUSIONS.register("bottleneck")(Bottleneck)


def build_fusion(
    name: str, arguments: Mapping[str, Any] | None = None, /, *, dtype: Any = jnp.float32, **context: Any
) -> nn.Module:
    """Builds the fusion `name` with the fields `arguments`; an unknown name or field is a `UserError`."""
    # `experts` reads the encoders' predictions, so it is not in the registry of those that can be compared on features.
    kind = Experts if name == "experts" else FUSIONS[name]
    return construct(f"fusion {name!r}", kind, arguments, dtype=dtype, **context)
