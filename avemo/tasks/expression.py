"""Teacher and student: facial expression from still faces.

Both learn from labelled faces (cross-entropy on hard labels or on rater votes) and from FEC triplets, in one joint
batch through one trunk: L = w_fec · L_FEC + w_ce · CE, where the thesis that re-implements arXiv 2103.09154 has w_fec
= 1 and w_ce = 0.1. The student adds, on every image of the batch and on unlabelled faces, the distance to a frozen
teacher: KL(teacher ‖ student) on tempered logits (× T²) and a distance between the embeddings.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from avemo.data import augment, layouts
from avemo.models import expression
from avemo.ops import global_batch
from avemo.runs import checkpoints, run_folder
from avemo.runs.weights import fingerprint
from avemo.tasks import expression_losses
from avemo.tasks.initial_weights import from_pretrained, initialise, provenance
from avemo.tasks.stage import Sizes, Spec, Stage, Variables, array, keys_of_rows


@dataclasses.dataclass(frozen=True, eq=False)
class ExpressionStage(Stage):
    """The stage `teacher`, or `student` if the config's task says so.

    Attributes:
      model: the network that is trained.
    """

    model: nn.Module
    required: ClassVar[tuple[str, ...]] = (
        *("model.name", "model.image_size", "model.num_classes", "data.batch", "loss.fec_weight", "loss.ce_weight"),
        *("loss.margin", "loss.labels", "loss.class_weights", "loss.label_smoothing"),
    )
    streams: ClassVar[tuple[str, ...]] = ("faces", "triplets", "unlabelled")

    @property
    def distilled(self) -> bool:
        """Whether it learns from a teacher."""
        return self.config.task == "student"

    @functools.cached_property
    def teacher(self) -> nn.Module:
        """The frozen teacher's network. If the config names no teacher, it is the student's own (the paper's case)."""
        if not self.config.teacher:
            return self.model
        folder = run_folder.require(self.config.teacher, "teacher")
        return expression.build(run_folder.config_of(folder).model)

    @functools.cached_property
    def _teacher_variables(self) -> Variables:
        return checkpoints.load(run_folder.require(self.config.teacher, "teacher"))[2]

    def examples(self, sizes: Sizes) -> int:
        """Pictures in a global batch of these sizes."""
        return sum(size * (3 if stream == "triplets" else 1) for stream, size in sizes.items())

    def spec(self, sizes: Sizes) -> Spec:
        """Shapes and dtypes of a training batch with `sizes` rows per stream."""
        return {stream: self._stream_spec(stream, size, self.config.model.image_size) for stream, size in sizes.items()}

    def input_spec(self, sizes: Sizes) -> Spec:
        """The same before augmentation: pictures at the side that is cropped."""
        side = augment.side_before_crop(self.config.model.image_size, self.config.data.get("augment", {}))
        return {stream: self._stream_spec(stream, size, side) for stream, size in sizes.items()}

    def _stream_spec(self, stream: str, size: int, side: int) -> dict[str, jax.ShapeDtypeStruct]:
        if stream == "triplets":
            return {"images": array(size, 3, side, side, 3, dtype=jnp.uint8), "type": array(size, dtype=jnp.int32)}
        return {
            "image": array(size, side, side, 3, dtype=jnp.uint8),
            "label": array(size, dtype=jnp.int32),
            "votes": array(size, self.config.model.num_classes),
            "valence": array(size),
            "arousal": array(size),
        }

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """Initial variables `{"params": ..., "batch_stats": ...}`."""
        del spec  # the image size is in the config
        side = self.config.model.image_size
        variables = initialise(
            functools.partial(self.model.init, train=False), key, jnp.zeros((1, side, side, 3), jnp.uint8)
        )
        kept = {name: tree for name, tree in variables.items() if name != "intermediates"}
        return from_pretrained(kept, self.config)

    def constants(self) -> dict[str, Any]:
        """The frozen teacher's variables, of a student."""
        return {"teacher": self._teacher_variables} if self.distilled else {}

    def constants_spec(self) -> dict[str, Any]:
        """Shapes and dtypes of `constants`."""
        if self.distilled and not self.config.teacher:
            key = jax.eval_shape(lambda: jax.random.key(0))
            return {"teacher": jax.eval_shape(functools.partial(self.init, spec={}), key)}
        return super().constants_spec()

    def weights(self) -> dict[str, str]:
        """Fingerprints of the pretrained weights and of the teacher."""
        teacher = {"teacher": fingerprint(self._teacher_variables)} if self.distilled else {}
        return provenance(self.config) | teacher

    def gather(self, stream: str, tables: Mapping[str, Any], draws: Mapping[str, Any]) -> dict[str, Any]:
        """Faces or triplets from packed pictures."""
        del stream
        return layouts.picture_rows(tables, draws)

    def augment(self, batch: Any, key: jax.Array) -> Any:
        """Crops, resizes and distorts the pictures as `data.augment` says."""
        out = {}
        for number, stream in enumerate(self.streams):
            if stream not in batch:
                continue
            field = "images" if stream == "triplets" else "image"
            images = batch[stream][field]
            flat = images.reshape(-1, *images.shape[-3:])
            keys = keys_of_rows(key, number, len(flat))
            strength, size = self.config.data.get("augment", {}), self.config.model.image_size
            flat = augment.faces(flat, keys, strength, size)
            out[stream] = {**batch[stream], field: flat.reshape(*images.shape[:-3], *flat.shape[1:])}
        return out

    def forward(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, Any], Any]:
        """Runs all images of the batch in one pass: `{stream: {name: [images, ...]}}`, and the model state."""
        images, sizes, weights = [], [], []
        for stream in sorted(batch):
            x = batch[stream]["images" if stream == "triplets" else "image"]
            images.append(x.reshape(-1, *x.shape[-3:]))
            sizes.append(len(images[-1]))
            weights.append(expression_losses.image_weight(batch, stream))
        joined = jnp.concatenate(images)
        with global_batch.concatenation(sizes, weights):
            # Only the collections that the model has are mutable: a frozen network has no statistics to update.
            out, changed = self.model.apply(
                {"params": params, **model_state}, joined, train=True, rngs={"dropout": key}, mutable=list(model_state)
            )
        out = {"student": out}
        if self.distilled:
            out["teacher"] = jax.lax.stop_gradient(self.teacher.apply(constants["teacher"], joined, train=False))
        ends = np.cumsum(sizes).tolist()
        spans = {stream: slice(end - n, end) for stream, end, n in zip(sorted(batch), ends, sizes, strict=True)}
        return {stream: jax.tree.map(operator.itemgetter(span), out) for stream, span in spans.items()}, changed

    def criterion(self, outputs: dict[str, Any], batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The joint global loss, and the values to log."""
        return expression_losses.criterion(self.config.loss, self.distilled, outputs, batch)

    def predict(self, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """`embedding`, and for faces `logits`; also `teacher_logits` if `variables` hold the teacher's."""
        images = batch["images"] if "images" in batch else batch["image"]
        flat = images.reshape(-1, *images.shape[-3:])
        own = {name: tree for name, tree in variables.items() if name != "teacher"}
        made: Any = self.model.apply(own, flat, train=False)
        wanted = ("embedding", "logits") if images.ndim == 4 else ("embedding",)
        out = {k: v.reshape(*images.shape[:-3], -1) for k, v in made.items() if k in wanted}
        if "teacher" in variables and images.ndim == 4:
            taught: Any = self.teacher.apply(variables["teacher"], flat, train=False)
            out["teacher_logits"] = taught["logits"]
        return out


def make(config: ConfigDict) -> ExpressionStage:
    """Makes the stage `teacher` or `student` from its config."""
    return ExpressionStage(config, expression.build(config.model))
