"""Frozen encoders over prepared clips: per-frame visual and audio features with masks, cached as shards.

Fusion is then trained on the features alone, in minutes. Frames without a face and stretches without sound keep their
place and are masked.
"""

import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from avemo.data import shards
from avemo.data.examples import MEL_ROWS
from avemo.data.features import OUTPUTS
from avemo.models import expression
from avemo.ops import parallel
from avemo.runs import checkpoints, installed, run_folder, subruns
from avemo.runs.weights import fingerprint
from avemo.tasks import audio as audio_task
from media.errors import UserError
from media.images import resize

logger = logging.getLogger(__name__)
VISUAL_TASKS, AUDIO_TASKS = ("teacher", "student"), ("audio",)


class Encoder:
    """A run's network as a function of a stack of inputs `[N, ...]` on the host to features float32 `[N, D]`.

    Attributes:
      modality: "visual" (face images uint8 `[N, S, S, 3]` RGB) or "audio" (log-mel windows float32 `[N, 96, 64]`).
      output: which of the network's outputs is the feature.
      dim: D.
      image_size: S; 0 for audio.
      fingerprint: of the weights.
    """

    def __init__(self, workdir: str, batch_size: int = 256, layer: str = "embedding"):
        self.config, _, variables = checkpoints.load(run_folder.require(workdir, "encoder"))
        if self.config.task in VISUAL_TASKS:
            self.modality, self.image_size = "visual", int(self.config.model.image_size)
            model = expression.build(self.config.model, axis_name=parallel.AXIS)
            example = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        elif self.config.task in AUDIO_TASKS:
            self.modality, self.image_size = "audio", 0
            model = audio_task.build(self.config)
            example = np.zeros((1, MEL_ROWS, 64), np.float32)
        else:
            hint = f" Its encoders are in {workdir}/{subruns.FOLDER}." if self.config.task == "end_to_end" else ""
            raise UserError(
                f"{workdir} is a run of task {self.config.task!r}: extract takes a teacher, student or audio run.{hint}"
            )
        output = "logits" if layer == "logits" else OUTPUTS[self.modality]
        shapes = jax.eval_shape(functools.partial(model.apply, train=False), variables, example)
        if output not in shapes:
            raise UserError(f"{workdir} gives no logits (model.num_classes=0): extract its embedding instead.")
        self.output, self.fingerprint = output, fingerprint(variables)
        self._variables = jax.device_put(variables)
        apply = lambda state, batch, _: model.apply(state, batch, train=False)[output]  # noqa: E731
        self.dim = shapes[output].shape[-1]
        self._mapped = parallel.map_step(apply, donate_state=False, gather_outputs=True)
        self._devices = jax.local_device_count()
        self._size = -(-batch_size // self._devices) * self._devices

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Encodes `[N, ...]` in batches of one size, a shorter one padded to the next power of two: few programs serve
        every N, and clips of a second are not computed as batches."""
        out = [np.zeros((0, self.dim), np.float32)]
        for begin in range(0, len(inputs), self._size):
            part = inputs[begin : begin + self._size]
            rows = min(self._size, self._devices * (1 << (-(-len(part) // self._devices) - 1).bit_length()))
            padded = np.pad(part, [(0, rows - len(part))] + [(0, 0)] * (part.ndim - 1))
            features = parallel.unshard(self._mapped(self._variables, parallel.shard_batch(padded), {}))
            out.append(np.asarray(features[: len(part)], np.float32))
        return np.concatenate(out)


def encode_segment(
    record: dict[str, Any], visual: Encoder | None, audio: Encoder | None, chunk: int = 512
) -> dict[str, np.ndarray]:
    """Features of one `clips` record: visual `[T, Dv]`, audio `[T, Da]`, zero where masked; memory bounded by
    `chunk`."""
    length = len(record["time"])
    face, sound = record["face_mask"].astype(bool), record["audio_mask"].astype(bool)
    out = {"visual_mask": face & (visual is not None), "audio_mask": sound & (audio is not None)}

    def fill(encoder: Encoder | None, mask: np.ndarray, fetch: Callable[[int], np.ndarray]) -> np.ndarray:
        features = np.zeros((length, encoder.dim if encoder else 1), np.float32)
        (present,) = np.nonzero(mask)
        for begin in range(0, len(present) if encoder else 0, chunk):
            index = present[begin : begin + chunk]
            features[index] = encoder(np.stack([fetch(i) for i in index]))
        return features

    out["visual"] = fill(visual, out["visual_mask"], lambda i: resize(record["frames"].decode(i), visual.image_size))
    out["audio"] = fill(
        audio,
        out["audio_mask"],
        lambda i: record["log_mel"][record["audio_index"][i] : record["audio_index"][i] + MEL_ROWS],
    )
    return out


def extract(
    workdirs: Sequence[str], data: str, output: str, progress: bool | None = None, layer: str = "embedding"
) -> epath.Path:
    """Writes the features of every split of `data` to `output/features/<version>/`.

    Args:
      workdirs: run folders, or names of released runs, of a visual encoder (teacher or student), an audio encoder, or
        both.
      data: folder of prepared clips.
      output: folder for the features data set.
      progress: whether to draw a progress bar; by default where stderr is a terminal.
      layer: "embedding" (of a face network its descriptor), or "logits", what its classes say: few numbers, for corpora
        of a few dozen recordings.

    Returns:
      The data set's folder. One that is complete, of the same encoders and data, is left as it is.

    Raises:
      UserError: no clips, no encoder, two of one modality, or the output holds features of other encoders.
    """
    import tensorflow_datasets as tfds

    from media import records

    encoders: dict[str, Encoder] = {}
    workdirs = [installed.find(workdir) for workdir in workdirs]
    for workdir in workdirs:
        encoder = Encoder(workdir, layer=layer)
        if encoder.modality in encoders:
            raise UserError(f"--workdir names two {encoder.modality} encoders: name at most one of each modality.")
        encoders[encoder.modality] = encoder
    visual, audio = encoders.get("visual"), encoders.get("audio")
    names = shards.splits(data)
    sources = {split: shards.Shards(data, split) for split in names}
    first = next(iter(sources.values()))
    if "log_mel" not in first.features:
        raise UserError(f"{data} holds no clips (fields: {', '.join(sorted(first.features))}): extract takes clips.")
    card = {
        "data": shards.fingerprint(data),
        "clips": str(data),
        **{
            e.modality: {"workdir": str(w), "fingerprint": e.fingerprint, "output": e.output}
            for e, w in zip(encoders.values(), workdirs, strict=True)
        },
    }
    target = epath.Path(output) / "features" / records.SCHEMA_VERSION
    if (target / "extract.json").exists():
        before = json.loads((target / "extract.json").read_text())
        if _identity(before) != _identity(card):
            raise UserError(f"{target} holds features of other encoders or data: choose another --output.")
        logger.info("%s is complete: nothing to do.", target)
        return target
    raters = first.features["raters"].shape[1]
    schema = records.extracted_features(
        visual.dim if visual else 1, audio.dim if audio else 1, first.class_names, raters
    )

    class Features(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Per-frame features of frozen encoders."""

        VERSION = tfds.core.Version(records.SCHEMA_VERSION)
        name = "features"

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=schema, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {split: self._generate_examples(split) for split in names}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(_recordings(sources[split], visual, audio, progress, split))

    began = time.time()
    tfds.disable_progress_bar()
    builder = Features(data_dir=str(output), file_format="array_record")
    builder.download_and_prepare()
    (target / "extract.json").write_text(json.dumps(card, indent=2) + "\n")
    logger.info("extracted features to %s in %.1f s.", target, time.time() - began)
    return target


def _identity(card: dict[str, Any]) -> tuple:
    made_by = [(m, card.get(m) or {}) for m in ("visual", "audio")]
    return card["data"], *((one.get("fingerprint"), one.get("output", OUTPUTS[m])) for m, one in made_by)


def _recordings(
    source: shards.Shards, visual: Encoder | None, audio: Encoder | None, progress: bool | None, split: str
) -> Iterator[dict[str, Any]]:
    """Joins consecutive segments into recordings, encoded."""
    fixed = ("recording", "subject", "fps", "label")
    timed = ("time", "targets", "target_mask", "raters")
    order = sorted(range(len(source)), key=lambda i: _segment_key(source, i))
    parts: list[dict[str, Any]] = []

    def join() -> dict[str, Any]:
        return {
            **{k: parts[0][k] for k in fixed},
            **{k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k not in fixed},
        }

    disable = not (sys.stderr.isatty() if progress is None else progress)
    for index in tqdm(order, desc=f"extract {split}", unit="segment", disable=disable):
        record = source[index]
        if parts and parts[0]["recording"] != record["recording"]:
            yield join()
            parts = []
        parts.append({**{k: record[k] for k in (*fixed, *timed)}, **encode_segment(record, visual, audio)})
    if parts:
        yield join()


def _segment_key(source: shards.Shards, index: int) -> tuple[str, int]:
    name, segment = source.fields(index, ("recording", "segment"))
    return name, int(segment)
