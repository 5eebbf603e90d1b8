"""The audio encoder: log-mel windows of 0.96 s to the targets of their frames, then frozen as a feature extractor.

VGGish with a linear head for valence and arousal (1 − CCC) or for the clip's emotion (cross-entropy). No source that we
could read states how the encoder of arXiv 2103.09154 was trained, so this is our assumption.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo import losses
from avemo.data import augment, examples, layouts, padding
from avemo.models import audio_regressor
from avemo.ops import global_batch
from avemo.tasks.audiovisual import clip_logits
from avemo.tasks.initial_weights import from_pretrained, initialise, provenance
from avemo.tasks.stage import Sizes, Spec, Stage, Variables, array, keys_of_rows


@dataclasses.dataclass(frozen=True, eq=False)
class AudioStage(Stage):
    """The stage `audio`.

    Attributes:
      model: the network that is trained.
    """

    model: audio_regressor.AudioRegressor
    required: ClassVar[tuple[str, ...]] = (
        *("model.name", "model.num_classes", "data.clips", "data.batch.clips", "data.windows"),
        *("loss.per", "loss.mse_weight", "loss.label_smoothing"),
    )
    streams: ClassVar[tuple[str, ...]] = ("clips",)

    def examples(self, sizes: Sizes) -> int:
        """Windows in a global batch of these sizes."""
        return sizes["clips"] * self.config.data.windows

    def spec(self, sizes: Sizes) -> Spec:
        """Shapes and dtypes of a training batch with `sizes` rows per stream."""
        size, count = sizes["clips"], self.config.data.windows
        clips = {
            "windows": array(size, count, examples.MEL_ROWS, 64),
            "targets": array(size, count, 2),
            "mask": array(size, count, dtype=jnp.bool_),
            "target_mask": array(size, count, dtype=jnp.bool_),
            "label": array(size, dtype=jnp.int32),
        }
        return {"clips": clips}

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """Initial variables `{"params": ...}`, with `batch_stats` if the encoder has BatchNorm."""
        del spec  # the size of a window is fixed
        windows = jnp.zeros((1, examples.MEL_ROWS, 64))
        return from_pretrained(initialise(functools.partial(self.model.init, train=False), key, windows), self.config)

    def weights(self) -> dict[str, str]:
        """Fingerprint of the pretrained weights."""
        return provenance(self.config)

    def gather(self, stream: str, tables: Mapping[str, Any], draws: Mapping[str, Any]) -> dict[str, Any]:
        """The windows of clips from packed log-mel."""
        del stream
        return layouts.sound_rows(tables, draws, self.config.data.windows)

    def augment(self, batch: Any, key: jax.Array) -> Any:
        """Shifts and masks the windows as `data.augment` says."""
        clips = batch["clips"]
        keys = keys_of_rows(key, 0, len(clips["windows"]))
        windows = augment.windows(clips["windows"], keys, self.config.data.get("augment", {}))
        return {**batch, "clips": {**clips, "windows": windows}}

    def forward(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        """Logits `[B, N, C]` or traces `[B, N, 2]` of the clips' windows, and the model state."""
        del constants
        clips = batch["clips"]
        windows = clips["windows"]
        weight = None if "weight" not in clips else jnp.repeat(clips["weight"], windows.shape[1])
        with global_batch.concatenation([windows.shape[0] * windows.shape[1]], [weight]):
            out, changed = self.model.apply(
                {"params": params, **model_state},
                windows.reshape(-1, *windows.shape[2:]),
                train=True,
                rngs={"dropout": key},
                mutable=list(model_state),
            )
        return _by_clip(out, windows), changed

    def criterion(self, outputs: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The global loss, and the values to log."""
        clips, loss = padding.without_padding(batch["clips"]), self.config.loss
        if not self.config.model.num_classes:
            targets, mask = clips["targets"], clips["target_mask"]
            options = {"per": loss.per, "mse_weight": loss.mse_weight}
            return losses.ccc_loss(outputs["traces"], targets, mask, **options), {}
        logits = clip_logits(outputs["logits"], clips["mask"])
        # A silent clip holds no information about its emotion.
        label = jnp.where(clips["mask"].any(1), clips["label"], -1)
        value = losses.cross_entropy(logits, label, label_smoothing=loss.label_smoothing)
        correct = (logits.argmax(-1) == label).astype(jnp.float32)
        return value, {"accuracy": losses.weighted_mean(correct, (label >= 0).astype(jnp.float32))}

    def predict(self, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """Logits `[B, N, C]` or traces `[B, N, 2]` of windows `[B, N, 96, 64]`."""
        windows = batch["windows"]
        return _by_clip(self.model.apply(variables, windows.reshape(-1, *windows.shape[2:]), train=False), windows)


def _by_clip(out: Any, windows: jax.Array) -> dict[str, jax.Array]:
    return {k: v.reshape(*windows.shape[:2], -1) for k, v in out.items() if k != "embedding"}


def make(config: ConfigDict) -> AudioStage:
    """Makes the stage `audio` from its config."""
    return AudioStage(config, audio_regressor.build(config.model))
