"""What attention looks at, in a fusion or in a transformer over time."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from avemo import configuration
from avemo.analysis.inputs import features_of
from avemo.analysis.pictures import figure
from avemo.analysis.run import AnalysisRun
from avemo.data.features import stream_fields
from avemo.models.attention import AttentionBlock
from avemo.ops.attention import masked_softmax
from avemo.predict.fusion import FusionNetwork
from avemo.runs.checkpoints import open_run


def attention(
    run: AnalysisRun, recording: str | None = None, split: str | None = None, seconds: float = 20.0
) -> dict[str, np.ndarray]:
    """Attention weights over the beginning of a recording.

    Args:
      run: a fusion run whose fusion or temporal model attends (cross_attention, bottleneck, transformer).
      recording: by default the first of `split`.
      split: by default dev.
      seconds: length of the beginning; the network sees nothing else.

    Returns:
      Weights float32 `[heads, Tq, Tk]` of every block by name; in "fusion/audio_0" audio frames attend to face frames.
      A row sums to 1, or is 0 if no key is present. Keys past the frames are bottleneck tokens. Empty if
      nothing in the run attends.
    """
    config, variables = open_run(str(run.folder), "run", ("audiovisual",))
    chosen = features_of(run, recording, split)
    frames = min(len(chosen), max(1, round(seconds * chosen.fps)))
    fields = stream_fields(configuration.streams(config.model))
    batch = {field: chosen.stream(field)[None, :frames] for field in fields}
    fusion = FusionNetwork(str(run.folder), config, variables)
    projected: dict[tuple[str, ...], dict[str, Any]] = {}
    found: dict[str, np.ndarray] = {}

    def watch(call: Callable, arguments: tuple, keywords: dict[str, Any], context: Any) -> Any:
        out = call(*arguments, **keywords)
        path = context.module.path
        if context.method_name == "__call__" and path and path[-1] in ("query", "key"):
            projected.setdefault(path[:-1], {})[path[-1]] = out
        elif context.method_name == "__call__" and isinstance(context.module, AttentionBlock):
            found["/".join(path)] = _weights(context.module, arguments[2], **projected.pop(path))
        return out

    with nn.intercept_methods(watch):
        fusion.function(fusion.variables, {**batch, "mask": np.ones((1, frames), bool)}, None)
    return found


def _weights(block: AttentionBlock, mask: Any, query: Any, key: Any) -> np.ndarray:
    """The weights in `attend`, `[heads, Tq, Tk]`, from queries and keys `[1, T, heads, d]` and mask `[1, Tk]`."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    distance = np.arange(query.shape[1])[:, None] - np.arange(key.shape[1])[None, :]
    seen = np.ones(distance.shape, bool)
    if block.causal:
        seen &= distance >= 0
    if block.window is not None:
        seen &= np.abs(distance) <= block.window
    allowed = jnp.broadcast_to(seen[None, None] & np.asarray(mask)[:, None, None, :], scores.shape)
    return np.asarray(masked_softmax(scores / math.sqrt(query.shape[-1]), allowed)[0])


def plot_attention(
    run: AnalysisRun, recording: str | None = None, split: str | None = None, seconds: float = 20.0
) -> Figure | None:
    """Plots `attention`, mean over heads: one panel per block, one row per query frame. None if nothing attends."""
    found = attention(run, recording, split, seconds)
    if not found:
        return None
    fps = features_of(run, recording, split).fps
    out, panels = figure(3.3 * len(found) + 0.6, 3.1, 1, len(found))
    for axes, (name, weights) in zip(panels[0], found.items(), strict=True):
        mean = weights.mean(0)
        # Scaled by the row's largest weight: shared among 500 frames, each weight is small.
        share = mean / np.maximum(mean.max(1, keepdims=True), 1e-12)
        extent = (0, mean.shape[1] / fps, mean.shape[0] / fps, 0)
        picture = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, extent=extent, aspect="auto", interpolation="none")
        axes.set(title=name, xlabel="looked at (s)")
    panels[0, 0].set_ylabel("looking (s)")
    out.colorbar(picture, ax=panels[0].tolist(), label="weight / largest in row", shrink=0.9)
    return out
