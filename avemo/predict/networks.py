"""The networks of a run as functions on the host: faces and sound to features, features to traces."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avemo.models import audiovisual, expression
from avemo.runs import checkpoints, encoders, run_folder
from avemo.runs.weights import fingerprint as fingerprint_of
from avemo.tasks import TASKS
from avemo.tasks import audio as audio_task
from avemo.tasks.audiovisual import standardise
from media.errors import UserError

BATCH = 16  # faces or windows encoded at once: small enough to waste little on a short clip


def open_run(workdir: str, role: str, tasks: tuple[str, ...] = tuple(TASKS)) -> tuple[ConfigDict, dict[str, Any]]:
    """Loads a run's config and best variables.

    Raises:
      UserError: no run, no checkpoint, another task than one of `tasks`, or a config of another version.
    """
    config, _, variables = checkpoints.load(run_folder.require(workdir, role))
    if config.get("task") not in tasks:
        raise UserError(
            f"{workdir} is a run of task {config.get('task')!r}, not of {' or '.join(tasks)}: name another run folder."
        )
    return config, variables


class Network:
    """An encoder run on one device: a stack of inputs `[N, ...]` on the host to a dict of arrays `[N, ...]`.

    Attributes:
      modality: "visual" (faces uint8 `[N, S, S, 3]` RGB) or "audio" (log-mel windows float32 `[N, 96, 64]`).
      feature: name of the output that the fusion reads.
      image_size: S; 0 for audio; example: one input, zeros.
      outputs: names of what its own heads give, among "logits" and "traces"; classes: length of the logits.
    """

    def __init__(
        self,
        workdir: str,
        modality: str,
        batch_size: int = BATCH,
        fingerprint: str | None = None,
        feature: str | None = None,
    ):
        tasks = ("teacher", "student") if modality == "visual" else ("audio",)
        self.config, variables = open_run(workdir, modality, tasks)
        self.modality = modality
        self.fingerprint = fingerprint_of(variables)
        if fingerprint and fingerprint != self.fingerprint:
            raise UserError(
                f"the {modality} encoder {workdir} has other weights than the one that made this run's features: "
                f"extract and train again, or name the right run by --{modality}=RUN."
            )
        with _version_of(workdir):
            if modality == "visual":
                model, self.feature = expression.build(self.config.model), "descriptor"
                self.image_size = int(self.config.model.image_size)
                self.example = np.zeros((self.image_size, self.image_size, 3), np.uint8)
            else:
                model, self.feature, self.image_size = audio_task.build(self.config), "embedding", 0
                self.example = np.zeros((96, 64), np.float32)
        self.feature = feature or self.feature
        self.variables, self.batch_size = jax.device_put(variables), batch_size
        self.function = functools.partial(_encode, model)
        self._apply = jax.jit(self.function)
        self._shapes = jax.eval_shape(self.function, variables, self.example[None])
        self.outputs = tuple(k for k in ("logits", "traces") if k in self._shapes)
        self.classes = self._shapes["logits"].shape[-1] if "logits" in self._shapes else 0

    @property
    def dim(self) -> int:
        """Length of the feature."""
        return self._shapes[self.feature].shape[-1]

    def __call__(self, inputs: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Encodes N inputs in batches of one size, so that one program serves every N."""
        parts = {k: [np.zeros((0, *v.shape[1:]), np.float32)] for k, v in self._shapes.items()}
        for begin in range(0, len(inputs), self.batch_size):
            part = inputs[begin : begin + self.batch_size]
            padded = np.zeros((self.batch_size, *self.example.shape), self.example.dtype)
            for i, item in enumerate(part):
                padded[i] = item
            for name, value in self._apply(self.variables, padded).items():
                parts[name].append(np.asarray(value, np.float32)[: len(part)])
        return {name: np.concatenate(values) for name, values in parts.items()}


def _encode(model: Any, variables: Any, inputs: jax.Array) -> dict[str, jax.Array]:
    out = model.apply(variables, inputs, train=False)
    return {k: v for k, v in out.items() if k in ("descriptor", "embedding", "logits", "traces")}


class _version_of:
    """Turns a config field that this version misses or does not know into a line that says so."""

    def __init__(self, workdir: str):
        self._workdir = workdir

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, _: Any) -> None:
        if isinstance(error, (AttributeError, KeyError, UserError)):
            what = "lacks a field" if not isinstance(error, UserError) else "does not fit"
            raise UserError(
                f"the config of {self._workdir} {what} ({str(error).splitlines()[0][:120]}): it is of another "
                "version of avemo; train it again, or predict with the version in its result.json."
            ) from error


class Head:
    """What turns both modalities' features into traces; opened for a number of persons at once.

    Attributes:
      outputs: names among "traces" `[2]`, "rater_traces" `[R, 2]`, "logits" `[C]`, "gates" `[2]` (audio, visual).
      streams: whether frame t is settled without later frames.
    """

    streams = True

    def __init__(self, workdir: str, config: ConfigDict, variables: Any):
        with _version_of(workdir):
            self.model = audiovisual.build(config.model)
        self.variables = jax.device_put(variables)
        self.classes = int(config.model.get("num_classes") or 0)
        self.function = functools.partial(_fuse, self.model)
        self._apply = jax.jit(self.function)
        self.dims = {m: int(variables["constants"][f"{m}_mean"].shape[-1]) for m in encoders.MODALITIES}
        shapes = jax.eval_shape(self.function, variables, self._blank(1, 2), None)
        self.streams = shapes["carry"] is not None
        trained = ("logits", "gates") if self.classes else ("traces", "rater_traces", "gates")
        self.outputs = tuple(k for k in trained if k in shapes)

    def _blank(self, persons: int, length: int) -> dict[str, np.ndarray]:
        return {
            **{m: np.zeros((persons, length, d), np.float32) for m, d in self.dims.items()},
            **{name: np.zeros((persons, length), bool) for name in ("audio_mask", "visual_mask", "mask")},
        }

    def apply(
        self, batch: Mapping[str, np.ndarray], carry: Any = None, length: int | None = None
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Runs `batch` (audio, visual `[B, T, D]`, masks `[B, T]`), padded to `length`; returns outputs and carry."""
        persons, frames = batch["visual_mask"].shape
        padded = self._blank(persons, length or frames)
        for name, value in {**batch, "mask": np.ones((persons, frames), bool)}.items():
            padded[name][:, :frames] = value
        out = self._apply(self.variables, padded, carry)
        return {k: np.asarray(out[k])[:, :frames] for k in self.outputs}, out["carry"]


def _fuse(model: Any, variables: Any, batch: Any, carry: Any) -> dict[str, Any]:
    x = standardise(batch, variables["constants"])
    masks = (batch["audio_mask"], batch["visual_mask"], batch["mask"])
    params = {"params": variables["params"]}
    out = model.apply(params, x["audio"], x["visual"], *masks, train=False, carry=carry)
    return {k: v for k, v in out.items() if k in ("traces", "rater_traces", "logits", "gates", "carry")}
