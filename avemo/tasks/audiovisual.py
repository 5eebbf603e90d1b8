"""Fusion and time: cached per-frame features of named streams to valence and arousal traces, or to an emotion.

Model-level fusion and a recurrent network over the joint sequence (arXiv 2103.09154). The loss is 1 − CCC per dimension
(our assumption), or cross-entropy of the clip's emotion over masked time for corpora that carry emotions.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo import losses
from avemo.configuration import STREAMS
from avemo.data import features, layouts, padding
from avemo.models import audiovisual
from avemo.tasks.initial_weights import initialise
from avemo.tasks.stage import Sizes, Spec, Stage, Variables, array
from media.errors import UserError

# What `launch.py extract` writes of the paper's encoders: the face descriptor and VGGish's embedding.
PAPER_DIMS = {"visual": 128, "audio": 128}


def inputs(streams: Sequence[str]) -> tuple[str, ...]:
    """The fields of a batch that the model reads, in the order of its arguments."""
    return (*features.stream_fields(streams), "mask")


def standardise(batch: Any, constants: Any, streams: Sequence[str] = STREAMS) -> dict[str, jax.Array]:
    """Features `[B, T, D]` minus the mean over the deviation of the training split; zero if the stream is absent."""
    out = {}
    for name in streams:
        x = (batch[name] - constants[f"{name}_mean"][None, None]) / constants[f"{name}_std"][None, None]
        out[name] = jnp.where(batch[f"{name}_mask"][..., None], x, 0.0)
    return out


def apply(model: Any, variables: Any, batch: Any, train: bool, key: jax.Array | None = None) -> dict[str, jax.Array]:
    """Runs the model on a batch of sequences; `variables` carry the standardisation as the collection `constants`."""
    read = arguments(model, batch, variables["constants"])
    return model.apply(
        {"params": variables["params"]}, *read, train=train, rngs=None if key is None else {"dropout": key}
    )


def arguments(model: Any, batch: Any, constants: Any) -> list[jax.Array]:
    """What the model takes of a batch: standardised features, masks and, if it starts from them, the predictions."""
    x = {**batch, **standardise(batch, constants, model.streams)}
    read = [x[name] for name in inputs(model.streams)]
    if not model.prior:
        return read
    columns = list(model.prior_columns)
    if any(batch[name].shape[-1] <= max(columns) for name in model.streams):
        raise UserError(f"model.prior_columns={tuple(columns)}: a stream has fewer columns.")
    return [*read, jnp.stack([batch[name][..., jnp.array(columns)] for name in model.streams], -2)]


def sequence_spec(size: int, length: int, dims: Mapping[str, int], raters: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of `size` windows of `length` frames, as `avemo.data.features.sequence` cuts them."""
    masks = (*(f"{name}_mask" for name in dims), "rater_mask", "target_mask", "mask")
    return {
        **{name: array(size, length, dim) for name, dim in dims.items()},
        **{name: array(size, length, dtype=jnp.bool_) for name in masks},
        "raters": array(size, length, raters, 2),
        "targets": array(size, length, 2),
        "label": array(size, dtype=jnp.int32),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class AudioVisualStage(Stage):
    """The stage `audiovisual`.

    Attributes:
      model: the network that is trained.
    """

    model: audiovisual.AudioVisual
    required: ClassVar[tuple[str, ...]] = (
        *("model.num_classes", "data.features", "data.batch.sequences", "data.sequence_length", "data.sequence_hop"),
        *("data.delay", "loss.per", "loss.mse_weight", "loss.label_smoothing"),
    )
    short: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]] = ("sequences",)

    @functools.cached_property
    def _initialiser(self) -> Callable:
        # One object, so that it is compiled once however often `init` is called.
        return functools.partial(self.model.init, train=False)

    def spec(self, sizes: Sizes, dims: Mapping[str, int] = PAPER_DIMS, raters: int | None = None) -> Spec:
        """Shapes and dtypes of a training batch.

        Args:
          sizes: rows per stream.
          dims: lengths of the features by stream; without data the paper's.
          raters: raters whose traces a batch holds; by default those that the model learns.
        """
        raters = (self.config.model.get("num_raters") or 0) if raters is None else raters
        length = self.config.data.sequence_length
        return {stream: sequence_spec(size, length, dims, raters) for stream, size in sizes.items()}

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """Initial variables `{"params": ..., "constants": ...}`; the constants standardise nothing yet."""
        rows = spec["sequences"]
        constants = {}
        for name in self.model.streams:
            dim = rows[name].shape[-1:]
            constants[f"{name}_mean"], constants[f"{name}_std"] = jnp.zeros(dim), jnp.ones(dim)
        read = inputs(self.model.streams)
        example = {name: jnp.zeros((1, *rows[name].shape[1:]), rows[name].dtype) for name in read}
        params = initialise(self._initialiser, key, *arguments(self.model, example, constants))["params"]
        return {"params": params, "constants": constants}

    def gather(self, stream: str, tables: Mapping[str, Any], draws: Mapping[str, Any]) -> dict[str, Any]:
        """The windows of recordings' features."""
        del stream
        return layouts.sequence_rows(tables, draws, self.config.data.sequence_length)

    def forward(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        """The outputs that the criterion reads, and the model state, which training leaves alone."""
        del constants
        out = apply(self.model, {"params": params, **model_state}, batch["sequences"], train=True, key=key)
        return trained_outputs(out), model_state

    def criterion(self, outputs: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The global loss, and the values to log."""
        return criterion(self.config, batch["sequences"], outputs)

    def predict(self, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """`traces` `[B, T, 2]` or `logits` `[B, T, C]`, and `gates` if the fusion has them."""
        return scored_outputs(apply(self.model, variables, batch, train=False))


def trained_outputs(out: Any) -> dict[str, jax.Array]:
    """The outputs of the model that `criterion` reads."""
    return {k: out[k] for k in ("traces", "rater_traces", "logits") if k in out}


def scored_outputs(out: Any) -> dict[str, jax.Array]:
    """The outputs of the model that are scored and saved."""
    return {k: out[k] for k in ("traces", "logits", "gates") if k in out}


def clip_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of per-frame logits `[B, T, C]` over the frames of `mask` `[B, T]`: `[B, C]`."""
    weight = mask.astype(jnp.float32)[..., None]
    return (logits * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)


def criterion(config: ConfigDict, sequences: Any, out: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The global loss of a model's outputs on a stream of sequences, and the values to log."""
    rows = padding.without_padding(sequences)
    if config.model.num_classes:
        logits = clip_logits(out["logits"], rows["mask"])
        loss = losses.cross_entropy(logits, rows["label"], label_smoothing=config.loss.label_smoothing)
        correct = (logits.argmax(-1) == rows["label"]).astype(jnp.float32)
        accuracy = losses.weighted_mean(correct, (rows["label"] >= 0).astype(jnp.float32))
        return loss, {"accuracy": accuracy}
    options = {"per": config.loss.per, "mse_weight": config.loss.mse_weight}
    weights = config.loss.get("dimensions", "auto")
    if weights != "auto":
        options["dimensions"] = _numbers("loss.dimensions", weights)
    if config.model.get("num_raters"):
        return losses.rater_ccc_loss(out["rater_traces"], rows["raters"], rows["rater_mask"], **options), {}
    return losses.ccc_loss(out["traces"], rows["targets"], rows["target_mask"], **options), {}


def _numbers(field: str, text: Any) -> tuple[float, ...]:
    """The numbers of a field: a tuple, or text with commas."""
    try:
        return tuple(float(value) for value in (text.split(",") if isinstance(text, str) else text))
    except ValueError as error:
        raise UserError(f"{field}={text} must be numbers such as 2,1, or auto.") from error


def make(config: ConfigDict) -> AudioVisualStage:
    """Makes the stage `audiovisual` from its config."""
    return AudioVisualStage(config, audiovisual.build(config.model))
