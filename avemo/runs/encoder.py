"""The encoder of a run: a network that maps a stack of faces or log-mel windows to features and head outputs.

`EncoderNetwork` is the network alone, from a config; `Encoder` is a recorded run's network with its weights.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from avemo.data.examples import MEL_ROWS
from avemo.data.features import OUTPUTS
from avemo.models import audio_regressor, expression
from avemo.ops import parallel
from avemo.runs import checkpoints
from avemo.runs.weights import fingerprint as fingerprint_of
from media.audio import NUM_BANDS
from media.errors import UserError

TASKS = {"visual": ("teacher", "student"), "audio": ("audio",)}
BATCH = 16  # inputs per batch; small enough to waste little on a short clip
_HEADS = ("logits", "traces")
_KEPT = ("descriptor", "embedding", *_HEADS)


@dataclasses.dataclass(frozen=True)
class EncoderNetwork:
    """An encoder's network in inference mode.

    Attributes:
      modality: "visual" or "audio".
      model: the Flax module.
      image_size: side S of the face images, pixels; 0 for audio.
    """

    modality: str
    model: nn.Module
    image_size: int

    @property
    def example(self) -> np.ndarray:
        """One blank input: a face uint8 `[S, S, 3]` RGB, or a log-mel window float32 `[96, 64]`."""
        if self.modality == "visual":
            return np.zeros((self.image_size, self.image_size, 3), np.uint8)
        return np.zeros((MEL_ROWS, NUM_BANDS), np.float32)

    def __call__(self, variables: Any, inputs: jax.Array) -> dict[str, jax.Array]:
        """Maps inputs `[N, ...]` to outputs `[N, ...]`: descriptor, embedding, logits, traces, as the network has."""
        out: Any = self.model.apply(variables, inputs, train=False)
        return {k: v for k, v in out.items() if k in _KEPT}


def network(config: ConfigDict) -> EncoderNetwork:
    """Builds the network of a teacher, student or audio run from its config."""
    if config.task in TASKS["visual"]:
        return EncoderNetwork("visual", expression.build(config.model), int(config.model.image_size))
    return EncoderNetwork("audio", audio_regressor.build(config.model), 0)


@contextlib.contextmanager
def config_of(workdir: str) -> Iterator[None]:
    """Reports a config that does not fit this version, or the weights beside it, as a `UserError` naming the run."""
    try:
        yield
    except Exception as error:  # what a network makes of wrong fields or weights is of any kind
        what = "lacks a field" if isinstance(error, (AttributeError, KeyError)) else "does not fit"
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"the config of {workdir} {what} ({reason}): it is from another version of avemo, or damaged; train the "
            "run again, or use the version named in its result.json."
        ) from error


class Encoder:
    """A recorded run's network with its weights: maps a stack of inputs on the host to a dict of arrays.

    Args:
      workdir: run folder of a teacher, student or audio encoder.
      modality: "visual" or "audio", if only one of them will do.
      feature: name of the output that serves as the feature; by default the modality's own.
      fingerprint: what the weights' fingerprint must be; empty accepts any weights.
      batch_size: inputs per batch.
      smallest_batch: a remainder is padded to a power of two, and at least to this size. By default it is padded to
        `batch_size`, so that one compiled program serves every N.
      feature_only: compute the feature and no other output.
      all_devices: split each batch over all local devices; by default one device computes it.

    Attributes:
      config, modality, feature, fingerprint: see above.
      network: the pure function `(variables, inputs) -> outputs`.
      variables: weights on the device.
      image_size: side of the face images, pixels; 0 for audio.
      dim: length of the feature.
      heads: names of the head outputs, among "logits" and "traces".
      classes: length of the logits; 0 without logits.

    Raises:
      UserError: `workdir` is not a run of the right kind, its weights are other ones, or its config is of another
        version.
    """

    def __init__(
        self,
        workdir: str,
        modality: str = "",
        *,
        feature: str = "",
        fingerprint: str = "",
        batch_size: int = BATCH,
        smallest_batch: int = 0,
        feature_only: bool = False,
        all_devices: bool = False,
    ):
        tasks = TASKS[modality] if modality else (*TASKS["visual"], *TASKS["audio"])
        self.config, variables = checkpoints.open_run(workdir, modality or "encoder", tasks)
        self.fingerprint = fingerprint_of(variables)
        with config_of(workdir):
            self.network = network(self.config)
        self.modality, self.image_size = self.network.modality, self.network.image_size
        if fingerprint and fingerprint != self.fingerprint:
            raise UserError(
                f"the {self.modality} encoder {workdir} has other weights than the one that made this run's features: "
                f"extract and train again, or name the right run with --{self.modality}=RUN."
            )
        self.feature = feature or OUTPUTS[self.modality]
        with config_of(workdir):
            shapes = jax.eval_shape(self.network, variables, self.example[None])
        if self.feature not in shapes:
            raise UserError(f"{workdir} gives no {self.feature} (model.num_classes=0): use its embedding instead.")
        self.dim = shapes[self.feature].shape[-1]
        self.heads = tuple(k for k in _HEADS if k in shapes)
        self.classes = shapes["logits"].shape[-1] if "logits" in shapes else 0
        self.variables = jax.device_put(variables)
        kept = (self.feature,) if feature_only else tuple(shapes)
        self._shapes = {name: shapes[name].shape[1:] for name in kept}
        self._devices = jax.local_device_count() if all_devices else 1
        self._size = -(-batch_size // self._devices) * self._devices
        self._smallest = smallest_batch or self._size
        self._apply = self._on_all_devices() if all_devices else jax.jit(self._outputs)

    @property
    def example(self) -> np.ndarray:
        """One blank input, see `EncoderNetwork.example`."""
        return self.network.example

    def _outputs(self, variables: Any, inputs: jax.Array) -> dict[str, jax.Array]:
        out = self.network(variables, inputs)
        return {name: out[name] for name in self._shapes}

    def _on_all_devices(self) -> Any:
        def step(variables: Any, inputs: jax.Array, _: Any) -> dict[str, jax.Array]:
            return self._outputs(variables, inputs)

        mapped = parallel.map_step(step, donate_state=False, gather_outputs=True)
        return lambda variables, inputs: parallel.unshard(mapped(variables, parallel.shard_batch(inputs), {}))

    def __call__(self, inputs: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Encodes N inputs in batches; returns float32 arrays `[N, ...]`."""
        out = {name: [np.zeros((0, *shape), np.float32)] for name, shape in self._shapes.items()}
        for begin in range(0, len(inputs), self._size):
            batch = np.asarray(inputs[begin : begin + self._size], self.example.dtype)
            rows = self._devices * (1 << (-(-len(batch) // self._devices) - 1).bit_length())
            rows = min(self._size, max(self._smallest, rows))
            padded = np.pad(batch, [(0, rows - len(batch))] + [(0, 0)] * (batch.ndim - 1))
            for name, value in self._apply(self.variables, padded).items():
                out[name].append(np.asarray(value, np.float32)[: len(batch)])
        return {name: np.concatenate(values) for name, values in out.items()}
