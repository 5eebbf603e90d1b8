"""Fusion with its encoders: a run on cached features continues from frames and log-mel, with all weights training.

It starts from the fusion run and the encoders that made its features. Before the first step the scores therefore equal
those on the cached features, and any change comes from fine-tuning the encoders. The encoders keep their batch
statistics, because consecutive frames of few faces are a poor sample of faces.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avemo import configuration
from avemo.configuration import STREAMS
from avemo.data import examples, features
from avemo.runs import checkpoints, run_folder
from avemo.runs.encoder import EncoderNetwork, network
from avemo.runs.recorded_encoders import RecordedEncoders, resolve
from avemo.runs.weights import fingerprint
from avemo.tasks import audio, audiovisual, expression
from avemo.tasks.audiovisual import PAPER_DIMS, AudioVisualStage
from avemo.tasks.stage import Sizes, Spec, Stage, Variables, array
from media.errors import UserError

FIELDS = {"visual": "image", "audio": "windows"}  # what each encoder reads of a batch
_PAPER = pathlib.Path(__file__).parents[2] / "configs" / "paper"


@dataclasses.dataclass(frozen=True, eq=False)
class EndToEndStage(Stage):
    """The stage `end_to_end`.

    Attributes:
      fusion: the stage of the fusion run.
      encoders: the stages of its encoders, by modality.
      runs: run folders that it starts from, by network: `fusion` and the encoders. Empty if the config names no fusion
        run: then the networks are the paper's, untrained.
      recorded: how the fusion run's features were made; None if the config names no fusion run.
    """

    fusion: AudioVisualStage
    encoders: Mapping[str, Stage]
    runs: Mapping[str, str]
    recorded: RecordedEncoders | None
    required: ClassVar[tuple[str, ...]] = (
        *("fusion", "data.clips", "data.batch.clips", "data.sequence_length", "data.sequence_hop", "data.delay"),
        *("data.eval_batch", "data.eval_frames", "loss.per", "loss.mse_weight", "loss.label_smoothing"),
    )
    streams: ClassVar[tuple[str, ...]] = ("clips",)

    @functools.cached_property
    def settings(self) -> ConfigDict:
        """The config of the audiovisual criterion: the fusion run's model with this run's data and loss."""
        return ConfigDict({**self.config.to_dict(), "model": self.fusion.config.model.to_dict()})

    @functools.cached_property
    def networks(self) -> dict[str, EncoderNetwork]:
        """The encoders' networks in inference mode, by modality."""
        return {modality: network(encoder.config) for modality, encoder in self.encoders.items()}

    @property
    def image_size(self) -> int:
        """The side of the pictures in a batch."""
        return self.networks["visual"].image_size if "visual" in self.networks else 32

    @property
    def outputs(self) -> Mapping[str, str]:
        """Which output of an encoder is the feature, by modality."""
        return self.recorded.outputs if self.recorded else features.OUTPUTS

    @functools.cached_property
    def _trained(self) -> dict[str, Variables]:
        return {name: checkpoints.load(folder)[2] for name, folder in self.runs.items()}

    def spec(self, sizes: Sizes) -> Spec:
        """Shapes and dtypes of a training batch with `sizes` rows per stream."""
        size, length = sizes["clips"], self.config.data.sequence_length
        raters = self.settings.model.get("num_raters") or 0
        rows = audiovisual.sequence_spec(size, length, PAPER_DIMS, raters)
        rows = {name: spec for name, spec in rows.items() if name not in STREAMS}
        rows["image"] = array(size, length, self.image_size, self.image_size, 3, dtype=jnp.uint8)
        rows["windows"] = array(size, length, examples.MEL_ROWS, 64)
        return {"clips": rows}

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        """The variables of the runs it starts from: `{"params": {network: ...}, "constants": ..., "statistics": ...}`.

        Nothing is drawn, unless the config names no fusion run.
        """
        del spec
        made = self._trained or {
            "fusion": self.fusion.init(key, self.fusion.spec({"sequences": 1})),
            **{modality: encoder.init(key, {}) for modality, encoder in self.encoders.items()},
        }
        statistics = {m: {k: v for k, v in made[m].items() if k != "params"} for m in self.encoders}
        params = {name: variables["params"] for name, variables in made.items()}
        variables = {"params": params, "constants": made["fusion"]["constants"], "statistics": statistics}
        return jax.tree.map(jnp.asarray, variables)

    def weights(self) -> dict[str, str]:
        """Fingerprints of the fusion run and its encoders."""
        return {name: fingerprint(variables) for name, variables in self._trained.items()}

    def encode(self, modality: str, params: Any, model_state: Any, inputs: jax.Array) -> jax.Array:
        """Features `[..., D]` of inputs `[..., *shape]`; one zero column if there is no such encoder."""
        leading = inputs.shape[: inputs.ndim - (3 if modality == "visual" else 2)]
        if modality not in self.encoders:
            return jnp.zeros((*leading, 1), jnp.float32)
        flat = inputs.reshape(-1, *inputs.shape[len(leading) :])
        variables = {"params": params[modality], **model_state["statistics"][modality]}
        out = self.networks[modality](variables, flat)
        return out[self.outputs[modality]].astype(jnp.float32).reshape(*leading, -1)

    def forward(
        self, params: Any, model_state: Any, constants: Any, batch: Any, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Any]:
        """The fusion's outputs that the criterion reads, from pictures and sound, and the model state."""
        del constants
        clips = dict(batch["clips"])
        for modality, field in FIELDS.items():
            clips[modality] = self.encode(modality, params, model_state, clips.pop(field))
        variables = {"params": params["fusion"], **model_state}
        return audiovisual.trained_outputs(
            audiovisual.apply(self.fusion.model, variables, clips, train=True, key=key)
        ), model_state

    def criterion(self, outputs: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The global loss, and the values to log."""
        return audiovisual.criterion(self.settings, batch["clips"], outputs)

    def predict(self, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """`features` of pictures or of sound, or the fusion's outputs for encoded sequences."""
        params, state = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        for modality, field in FIELDS.items():
            if field in batch:
                return {"features": self.encode(modality, params, state, batch[field])}
        return self.fusion.predict({"params": params["fusion"], **state}, batch)


def make(config: ConfigDict) -> EndToEndStage:
    """Makes the stage `end_to_end` from its config and the configs of the runs that it starts from."""
    dtype = config.model.get("dtype")
    if config.fusion:
        runs, recorded = _runs(config.fusion)
        configs = {name: run_folder.config_of(folder) for name, folder in runs.items()}
    else:
        runs, recorded = {}, None
        names = {"fusion": "fusion", "visual": "student", "audio": "audio"}
        configs = {network: configuration.load(str(_PAPER / f"{name}.py")) for network, name in names.items()}
    configs = {name: configuration.in_dtype(run, dtype) for name, run in configs.items()}
    fusion = audiovisual.make(configs.pop("fusion"))
    stages = {"visual": expression.make, "audio": audio.make}
    encoder_stages = {modality: stages[modality](run) for modality, run in configs.items()}
    return EndToEndStage(config, fusion, encoder_stages, runs, recorded)


def _runs(fusion: str) -> tuple[dict[str, str], RecordedEncoders]:
    """The run folders of a fusion run and its encoders, and how its features were made."""
    config = run_folder.config_of(run_folder.require(fusion, "fusion"))
    if config.task != "audiovisual":
        raise UserError(f"fusion {fusion} is a run of task {config.task!r}, not of audiovisual.")
    found = resolve(fusion, config)
    paths = {"fusion": fusion, "visual": found.visual, "audio": found.audio}
    return {name: path for name, path in paths.items() if path is not None}, found
