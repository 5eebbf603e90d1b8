"""Fusion with its encoders: a run trained on cached features goes on from frames and log-mel, all weights training.

The start is the fusion run itself with the encoders that made its features, so that before the first step the scores
are those of the cached features, and what follows is what fine-tuning the encoders adds. The encoders' batch statistics
stay as they are: a batch of consecutive frames of few faces would say little about faces.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.data import examples, features, pipeline, shards
from avemo.models import audiovisual as fusion_models
from avemo.runs import checkpoints, encoder, recorded_encoders, run_folder, subruns
from avemo.runs.encoder import EncoderNetwork
from avemo.runs.weights import fingerprint
from avemo.tasks import audiovisual, start
from avemo.tasks.base import Metrics, Predictions, Task
from media.images import resize

MODALITIES = audiovisual.MODALITIES
_LIGHT = ("time", "face_mask", "audio_mask", "targets", "target_mask", "raters")


class Clips:
    """A split of `clips` as recordings without features, whose frames and windows are read when they are asked for."""

    def __init__(self, source: shards.Shards):
        self._source = source
        rows = [
            source.fields(i, ("recording", "segment", "subject", "fps", "label", *_LIGHT)) for i in range(len(source))
        ]
        by_name: dict[str, list[int]] = {}
        for index in sorted(range(len(rows)), key=lambda i: (rows[i][0], int(rows[i][1]))):
            by_name.setdefault(rows[index][0], []).append(index)
        self.recordings, self._places = [], {}
        for name, indices in by_name.items():
            joined = {field: np.concatenate([rows[i][5 + n] for i in indices]) for n, field in enumerate(_LIGHT)}
            first = rows[indices[0]]
            nothing = np.zeros((len(joined["time"]), 0), np.float32)
            recording = features.Recording(
                name=name, subject=first[2], fps=float(first[3]), label=int(first[4]),
                time=joined["time"].astype(np.float64), visual=nothing, audio=nothing,
                visual_mask=joined["face_mask"].astype(bool), audio_mask=joined["audio_mask"].astype(bool),
                targets=joined["targets"], target_mask=joined["target_mask"].astype(bool), raters=joined["raters"],
            )  # fmt: skip
            self.recordings.append(recording)
            self._places[name] = [(i, frame) for i in indices for frame in range(len(rows[i][5]))]
        self._record = functools.lru_cache(maxsize=8)(self._source.__getitem__)

    def read(self, recording: features.Recording, begin: int, length: int, size: int) -> dict[str, np.ndarray]:
        """Frames from `begin`: image uint8 `[L, S, S, 3]` and windows float32 `[L, 96, 64]`, 0 where masked."""
        image = np.zeros((length, size, size, 3), np.uint8)
        windows = np.zeros((length, examples.MEL_ROWS, 64), np.float32)
        for row, (index, frame) in enumerate(self._places[recording.name][begin : begin + length]):
            record = self._record(index)
            if recording.visual_mask[begin + row]:
                image[row] = resize(record["frames"].decode(frame), size)
            if recording.audio_mask[begin + row]:
                first = record["audio_index"][frame]
                windows[row] = record["log_mel"][first : first + examples.MEL_ROWS]
        return {"image": image, "windows": windows}


def _example(
    clips: Clips, size: int, item: tuple[features.Recording, int], rng: np.random.Generator | None, config: ConfigDict
) -> dict[str, Any]:
    """One window of frames: its pictures, its log-mel windows, masks and targets."""
    recording, begin = item
    length = config.data.sequence_length
    if rng is not None and len(recording) > length:
        jitter = config.data.sequence_hop // 2
        begin = int(np.clip(begin + rng.integers(-jitter, jitter + 1), 0, len(recording) - length))
    row = features.sequence(recording, begin, length, config.data.delay)
    return {**{k: v for k, v in row.items() if k not in MODALITIES}, **clips.read(recording, begin, length, size)}


def make(config: ConfigDict, *, data: str | None = None, class_names: tuple[str, ...] = ()) -> Task:
    """The task `end_to_end`; `data` replaces the evaluation data's folder, `class_names` are the run's own."""
    folder = data or config.data.clips
    if not folder:
        raise start.UserError("data.clips is empty: pass the folder that `python -m data_prep` wrote.")
    fused_config, _, fused = checkpoints.load(run_folder.require(config.fusion, "fusion"))
    dtype = config.model.get("dtype")
    fused_config = configuration.in_dtype(fused_config, dtype)
    if fused_config.task != "audiovisual":
        raise start.UserError(f"fusion {config.fusion} is a run of task {fused_config.task!r}, not of audiovisual.")
    found = recorded_encoders.resolve(config.fusion, fused_config)
    fusion = fusion_models.build(fused_config.model)
    # The heads and losses of the audiovisual task, with the fusion run's model and this run's data and loss.
    settings = ConfigDict({**config.to_dict(), "model": fused_config.model.to_dict()})
    encoder_configs: dict[str, ConfigDict] = {}
    encoder_classes: dict[str, tuple[str, ...]] = {}
    params, statistics, weights, size = {"fusion": fused["params"]}, {}, {"fusion": fingerprint(fused)}, 32
    for modality in MODALITIES:
        path = getattr(found, modality)
        if path is None:
            continue
        encoder_config, _, variables = checkpoints.load(path)
        encoder_configs[modality] = configuration.in_dtype(encoder_config, dtype)
        encoder_classes[modality] = run_folder.class_names(path)
        weights[modality] = fingerprint(variables)
        params[modality], statistics[modality] = (
            variables["params"],
            {k: v for k, v in variables.items() if k != "params"},
        )
        if modality == "visual":
            size = int(encoder_configs[modality].model.image_size)
    networks = build(encoder_configs, found.outputs)

    def init(key: jax.Array) -> dict[str, Any]:
        del key  # nothing is drawn
        return jax.tree.map(jnp.asarray, {"params": params, "constants": fused["constants"], "statistics": statistics})

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        trained, state = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        if "image" in batch:
            return {"features": encode(networks, "visual", trained, state, batch["image"])}
        if "windows" in batch:
            return {"features": encode(networks, "audio", trained, state, batch["windows"])}
        out = audiovisual.apply(fusion, {"params": trained["fusion"], **state}, batch, train=False)
        return {k: out[k] for k in ("traces", "logits", "gates") if k in out}

    names = shards.Shards(folder, shards.splits(folder)[0]).class_names
    opened = functools.cache(lambda split: Clips(shards.Shards(folder, split)))

    def evaluate(mapped: Callable, variables: Any, split: str) -> tuple[Metrics, Predictions]:
        clips = opened(split)
        encoded = [
            _encode(clips, recording, mapped, variables, size, config.data.eval_frames)
            for recording in clips.recordings
        ]
        return audiovisual.score(mapped, variables, encoded, settings, (class_names, names))

    def on_finish(workdir: epath.Path, variables: Any, result: dict[str, Any]) -> None:
        trained = variables["params"]
        head = {"params": trained["fusion"], "constants": variables["constants"]}
        answer = _as_trained(fused_config, config)
        answer.data.update(features="", delay=config.data.delay)
        made = {"fusion": subruns.Subrun(answer, head, tuple(names))}
        for modality, run in encoder_configs.items():
            trained_encoder = {"params": trained[modality], **variables["statistics"].get(modality, {})}
            run, classes = _as_trained(run, config), encoder_classes[modality]
            made[modality] = subruns.Subrun(run, trained_encoder, classes, found.outputs[modality])
        subruns.write(workdir, made, {"faces": dataclasses.asdict(found.faces), "fps": found.fps}, result)

    sources = {
        "clips": pipeline.Source(folder, lambda *item: _example(opened("train"), size, *item), config.data.batch.clips)
    }

    def windows() -> dict[str, Any]:
        data = config.data
        return {"clips": features.Windows(opened("train").recordings, data.sequence_length, data.sequence_hop)}

    return Task(
        name=config.task, init=init, forward=functools.partial(forward, networks, fusion),
        criterion=functools.partial(audiovisual.criterion, settings, "clips"),
        batches=lambda: pipeline.train_batches(sources, config, windows()),
        records=lambda number: pipeline.batch_records(sources, config, number, windows()),
        examples=config.data.batch.clips, predict=predict, evaluate=evaluate, eval_splits=tuple(config.eval_splits),
        data={"clips": folder}, weights=weights, class_names=tuple(names), on_finish=on_finish,
    )  # fmt: skip


def _as_trained(run: ConfigDict, config: ConfigDict) -> ConfigDict:
    """The config of a run that this one started from, with how long and by what this one trained it."""
    return ConfigDict({**run.to_dict(), **{name: config[name] for name in ("steps", "seed", "best_metric", "ema")}})


def build(configs: dict[str, ConfigDict], outputs: Mapping[str, str] = features.OUTPUTS) -> dict[str, Callable]:
    """The encoders of the configs by modality: inference mode, float32 features out.

    Args:
      configs: of the encoders' runs.
      outputs: which output is the feature, by modality.
    """

    def feature(network: EncoderNetwork) -> Callable:
        return lambda variables, x: network(variables, x)[outputs[network.modality]].astype(jnp.float32)

    return {modality: feature(encoder.network(config)) for modality, config in configs.items()}


def encode(networks: dict[str, Callable], modality: str, trained: Any, state: Any, inputs: jax.Array) -> jax.Array:
    """Features `[..., D]` of inputs `[..., *shape]`; one zero column where the run has no such encoder."""
    leading = inputs.shape[: inputs.ndim - (3 if modality == "visual" else 2)]
    if modality not in networks:
        return jnp.zeros((*leading, 1), jnp.float32)
    flat = inputs.reshape(-1, *inputs.shape[len(leading) :])
    out = networks[modality]({"params": trained[modality], **state["statistics"][modality]}, flat)
    return out.reshape(*leading, -1)


def forward(
    networks: dict[str, Callable], fusion: Any, trained: Any, state: Any, constants: Any, batch: Any, key: jax.Array
) -> tuple[dict[str, jax.Array], Any]:
    """What the audiovisual criterion reads of the fusion's outputs, from pictures and sound, and the state."""
    del constants
    clips = dict(batch["clips"])
    for modality, field in (("visual", "image"), ("audio", "windows")):
        clips[modality] = encode(networks, modality, trained, state, clips.pop(field))
    out = audiovisual.apply(fusion, {"params": trained["fusion"], **state}, clips, train=True, key=key)
    return audiovisual.trained_outputs(out), state


def _encode(
    clips: Clips, recording: features.Recording, mapped: Callable, variables: Any, size: int, chunk: int
) -> features.Recording:
    """A recording with the present encoders' features; memory is bounded by `chunk` frames."""
    parts: dict[str, list[np.ndarray]] = {"visual": [], "audio": []}
    for begin in range(0, len(recording), chunk):
        rows = clips.read(recording, begin, chunk, size)  # the last chunk padded, so that one program serves all
        keep = min(chunk, len(recording) - begin)
        for modality, field in (("visual", "image"), ("audio", "windows")):
            parts[modality].append(np.asarray(mapped(variables, {field: rows[field]})["features"])[:keep])
    joined = {modality: np.concatenate(part) for modality, part in parts.items()}
    return dataclasses.replace(recording, **joined)
