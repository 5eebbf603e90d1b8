"""The fusion network of a run: features of both modalities to traces or emotions, whole or in pieces."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avemo.data.features import stream_fields
from avemo.models import audiovisual
from avemo.runs import encoder
from avemo.tasks.audiovisual import arguments

CHUNK = 128  # frames per call of a network that carries a state
WINDOW, CONTEXT = 1500, 250  # frames per call of a network that needs its whole sequence, and half their overlap
_OUTPUTS = ("traces", "rater_traces", "logits", "gates", "carry")


class FusionNetwork:
    """A fusion network on one device: features and masks on the host to outputs on the host.

    Attributes:
      model: the Flax module; variables: its weights and the standardisation, on the device.
      outputs: names of its outputs, among "traces" `[2]`, "rater_traces" `[R, 2]`, "logits" `[C]` and "gates" (of each
        stream).
      classes: length C of the logits; 0 for a network of traces.
      dims: length of each stream's feature.
      streams: whether the network carries a state, so that a frame's outputs do not depend on later frames.
    """

    def __init__(self, workdir: str, config: ConfigDict, variables: Any):
        with encoder.config_of(workdir):
            self.model = audiovisual.build(config.model)
            self.classes = int(config.model.get("num_classes") or 0)
            means = {m: variables["constants"][f"{m}_mean"] for m in self.model.streams}
            self.dims = {m: int(mean.shape[-1]) for m, mean in means.items()}
            shapes = jax.eval_shape(self.function, variables, self._blank(1, 2), None)
        self.variables = jax.device_put(variables)
        self._apply = jax.jit(self.function)
        self.streams = shapes["carry"] is not None
        trained = ("logits", "gates") if self.classes else ("traces", "rater_traces", "gates")
        self.outputs = tuple(k for k in trained if k in shapes)

    def function(self, variables: Any, batch: Mapping[str, Any], carry: Any) -> dict[str, Any]:
        """The pure function: features `[B, T, D]`, masks and `mask` `[B, T]`, and a carry, to outputs and "carry"."""
        read = arguments(self.model, batch, variables["constants"])
        out: Any = self.model.apply({"params": variables["params"]}, *read, train=False, carry=carry)
        return {k: v for k, v in out.items() if k in _OUTPUTS}

    def _blank(self, persons: int, length: int) -> dict[str, np.ndarray]:
        return {
            **{m: np.zeros((persons, length, d), np.float32) for m, d in self.dims.items()},
            **{f"{name}_mask": np.zeros((persons, length), bool) for name in self.dims},
            "mask": np.zeros((persons, length), bool),
        }

    def apply(
        self, batch: Mapping[str, np.ndarray], carry: Any = None, length: int | None = None
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Runs `batch` (features `[B, T, D]`, masks `[B, T]`), padded to `length`; returns outputs and carry."""
        persons, frames = batch[stream_fields(self.model.streams)[-1]].shape
        padded = self._blank(persons, length or frames)
        for name, value in {**batch, "mask": np.ones((persons, frames), bool)}.items():
            padded[name][:, :frames] = value
        out = self._apply(self.variables, padded, carry)
        return {k: np.asarray(out[k])[:, :frames] for k in self.outputs}, out["carry"]


class FusionStream:
    """A fusion network over one sequence that arrives in pieces.

    A network that carries a state takes `CHUNK` frames after `CHUNK` frames (live: frame after frame) and gives exactly
    what it gives for the whole sequence.

    A network that needs its whole sequence (a transformer, a bidirectional GRU, attention over time) takes up to
    `WINDOW` frames at once, so recordings up to that length are exact. A longer one is cut into windows that overlap by
    2·`CONTEXT` frames, and each window gives its middle. Live, it takes the last `CONTEXT` frames at every frame.
    """

    def __init__(self, fusion: FusionNetwork, live: bool = False):
        self._fusion, self._live, self._carry = fusion, live, None
        self._held: dict[str, np.ndarray] = {}
        self._given = 0  # held frames whose outputs have been given

    @property
    def dims(self) -> dict[str, int]:
        """The length of each stream's feature."""
        return self._fusion.dims

    def push(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Takes features `[B, T, D]` and masks `[B, T]` of the next frames; returns the outputs that are final."""
        self._held = (
            {k: np.concatenate([self._held[k], v], axis=1) for k, v in batch.items()} if self._held else dict(batch)
        )
        if self._fusion.streams:
            return list(self._chunks(1 if self._live else CHUNK))
        return [self._latest()] if self._live else list(self._windows())

    def finish(self) -> list[dict[str, np.ndarray]]:
        """Returns the outputs of the frames that are still held."""
        if self._live or self._length() <= self._given:
            return []
        return [self._chunk(self._length()) if self._fusion.streams else self._window(self._length(), last=True)]

    def _length(self) -> int:
        return next(iter(self._held.values())).shape[1] if self._held else 0

    def _chunks(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        while self._length() >= size:
            yield self._chunk(size)

    def _chunk(self, size: int) -> dict[str, np.ndarray]:
        chunk = {k: v[:, :size] for k, v in self._held.items()}
        self._held = {k: v[:, size:] for k, v in self._held.items()}
        out, self._carry = self._fusion.apply(chunk, self._carry, 1 if self._live else CHUNK)
        return out

    def _windows(self) -> Iterator[dict[str, np.ndarray]]:
        while self._length() > WINDOW:
            yield self._window(WINDOW, last=False)

    def _window(self, size: int, last: bool) -> dict[str, np.ndarray]:
        window = {k: v[:, :size] for k, v in self._held.items()}
        # Padding to powers of two keeps the number of compiled programs small.
        out, _ = self._fusion.apply(window, None, min(WINDOW, 1 << (size - 1).bit_length()))
        until = size if last else size - CONTEXT
        out = {k: v[:, self._given : until] for k, v in out.items()}
        self._held = {k: v[:, until - CONTEXT :] for k, v in self._held.items()}
        self._given = CONTEXT
        return out

    def _latest(self) -> dict[str, np.ndarray]:
        self._held = {k: v[:, -CONTEXT:] for k, v in self._held.items()}
        out, _ = self._fusion.apply(self._held, None, CONTEXT)
        return {k: v[:, -1:] for k, v in out.items()}
