"""Runs frozen encoders over prepared clips and caches per-frame features of both modalities, with masks, as shards.

A fusion is then trained on the features alone, in minutes. Frames without a face and stretches without sound keep their
place and are masked.
"""

import contextlib
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from avemo.data import shards
from avemo.data.examples import MEL_ROWS
from avemo.data.features import OUTPUTS
from avemo.runs import installed, paths, run_folder, shipped, subruns
from avemo.runs.encoder import TASKS, Encoder
from media import digests, records
from media.errors import UserError
from media.files import own_folder, read_json, write_errors
from media.images import resize

logger = logging.getLogger(__name__)
BATCH = 256  # inputs per batch over all devices
CHUNK = 512  # frames decoded at once
_COPIED = ("recording", "subject", "fps", "label")
_TIMED = ("time", "targets", "target_mask", "raters")


def open_encoder(workdir: str, layer: str = "embedding") -> Encoder:
    """Opens a teacher, student or audio run as an encoder over all devices.

    Args:
      workdir: run folder.
      layer: "embedding" (a face network's descriptor, an audio network's embedding) or "logits".

    Raises:
      UserError: `workdir` is not such a run, or its network has no logits.
    """
    task = run_folder.config_of(run_folder.require(workdir, "encoder")).get("task")
    if not any(task in tasks for tasks in TASKS.values()):
        hint = f" Its encoders are in {workdir}/{subruns.FOLDER}." if task == "end_to_end" else ""
        raise UserError(f"{workdir} is a run of task {task!r}: extract takes a teacher, student or audio run.{hint}")
    # Remainders are padded to a power of two: clips of a second would waste most of a whole batch.
    return Encoder(
        workdir,
        feature="logits" if layer == "logits" else "",
        feature_only=True,
        batch_size=BATCH,
        smallest_batch=1,
        all_devices=True,
    )


def encode_segment(
    record: Mapping[str, Any], visual: Encoder | None, audio: Encoder | None, chunk: int = CHUNK
) -> dict[str, np.ndarray]:
    """Encodes one `clips` record.

    Args:
      record: the record.
      visual, audio: encoders; None leaves the modality masked.
      chunk: frames decoded at once, which bounds memory.

    Returns:
      `visual` `[T, Dv]` and `audio` `[T, Da]`, zero where masked, `visual_mask` and `audio_mask` `[T]`.
    """
    size = visual.image_size if visual else 0

    def face(frame: int) -> np.ndarray:
        return resize(record["frames"].decode(frame), size)

    def window(frame: int) -> np.ndarray:
        return record["log_mel"][record["audio_index"][frame] : record["audio_index"][frame] + MEL_ROWS]

    out = {}
    for modality, encoder, field, fetch in (
        ("visual", visual, "face_mask", face),
        ("audio", audio, "audio_mask", window),
    ):
        mask = record[field].astype(bool) & (encoder is not None)
        out[f"{modality}_mask"] = mask
        out[modality] = np.zeros((len(mask), encoder.dim if encoder else 1), np.float32)
        (present,) = np.nonzero(mask)
        for begin in range(0, len(present), chunk):
            index = present[begin : begin + chunk]
            if encoder is not None:
                out[modality][index] = encoder(np.stack([fetch(i) for i in index]))[encoder.feature]
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
      progress: whether to draw a progress bar; by default only if stderr is a terminal.
      layer: "embedding" (a face network's descriptor), or "logits", which are only a few numbers and suit corpora of a
        few dozen recordings.

    Returns:
      The data set's folder. A complete one of the same encoders and data is left as it is.

    Raises:
      UserError: `data` has no clips, a workdir is not an encoder, two encoders have one modality, or the output holds
        features of other encoders.
    """
    # The release that the project carries is in another folder in each process: it is recorded by name.
    named = [w if w in shipped.RUNS else installed.find(w) for w in workdirs]
    workdirs = [installed.find(workdir) for workdir in workdirs]
    encoders: dict[str, Encoder] = {}
    for workdir in workdirs:
        opened = open_encoder(workdir, layer)
        if opened.modality in encoders:
            raise UserError(f"--workdir names two {opened.modality} encoders: name at most one of each modality.")
        encoders[opened.modality] = opened
    visual, audio = encoders.get("visual"), encoders.get("audio")
    sources = {split: shards.Shards(data, split) for split in shards.splits(data)}
    first = next(iter(sources.values()))
    if "log_mel" not in first.features:
        raise UserError(f"{data} holds no clips (fields: {', '.join(sorted(first.features))}): extract takes clips.")
    card = {
        "data": shards.fingerprint(data),
        "clips": str(data),
        **{
            e.modality: {"workdir": str(w), "fingerprint": e.fingerprint, "output": e.feature}
            for e, w in zip(encoders.values(), named, strict=True)
        },
    }
    target = epath.Path(output) / "features" / records.SCHEMA_VERSION
    if _complete(target, card):
        logger.info("%s is complete: nothing to do.", target)
        return target
    dims = (visual.dim if visual else 1, audio.dim if audio else 1)
    schema = records.extracted_features(*dims, first.class_names, first.features["raters"].shape[1])
    began = time.time()
    with _staging(target.parent) as staging:
        _write(
            staging,
            schema,
            {split: _recordings(source, visual, audio, progress, split) for split, source in sources.items()},
        )
        made = staging / target.parent.name / target.name
        digests.write(made, [path.name for path in made.iterdir() if "record-" in path.name])
        (made / "extract.json").write_text(json.dumps(card, indent=2) + "\n")
        if not _complete(target, card):  # another process may have been quicker
            made.rename(target)
    paths.record(target, {path: path for path in (str(data), *named) if path not in shipped.RUNS})
    logger.info("extracted features to %s in %.1f s.", target, time.time() - began)
    return target


def _complete(target: epath.Path, card: Mapping[str, Any]) -> bool:
    """Whether the features are there.

    Raises:
      UserError: there are others, or some of an unknown maker.
    """
    if not (target / "extract.json").exists():
        if target.exists():
            raise UserError(f"{target} does not say which encoders made it (no extract.json): remove it, run again.")
        return False
    if _identity(read_json(target / "extract.json", "extract the features again")) != _identity(card):
        raise UserError(f"{target} holds features of other encoders or data: choose another --output.")
    return True


@contextlib.contextmanager
def _staging(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields a folder to write in; features get their name when they and their card are complete.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if "://" in str(folder):
            yield folder / f".partial-{os.getpid()}"
            return
        with own_folder(pathlib.Path(folder), ".partial-") as local:
            yield epath.Path(local)


def _write(output: epath.Path, schema: Any, recordings: Mapping[str, Iterator[dict[str, Any]]]) -> None:
    """Writes a `features` data set; `recordings` yields the records of each split."""
    import tensorflow_datasets as tfds  # slow to import, and only writing needs it

    class Features(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Per-frame features of frozen encoders."""

        VERSION = tfds.core.Version(records.SCHEMA_VERSION)
        name = "features"

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=schema, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {split: self._generate_examples(split) for split in recordings}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(recordings[split])

    tfds.disable_progress_bar()
    Features(data_dir=str(output), file_format="array_record").download_and_prepare()


def _identity(card: Mapping[str, Any]) -> tuple:
    made_by = [(m, card.get(m) or {}) for m in ("visual", "audio")]
    return card["data"], *((one.get("fingerprint"), one.get("output", OUTPUTS[m])) for m, one in made_by)


def _recordings(
    source: shards.Shards, visual: Encoder | None, audio: Encoder | None, progress: bool | None, split: str
) -> Iterator[dict[str, Any]]:
    """Encodes the segments of a split and joins those of one recording."""
    order = sorted(range(len(source)), key=lambda i: _segment_key(source, i))
    segments: list[dict[str, Any]] = []
    disable = not (sys.stderr.isatty() if progress is None else progress)
    for index in tqdm(order, desc=f"extract {split}", unit="segment", disable=disable):
        record = source[index]
        if segments and segments[0]["recording"] != record["recording"]:
            yield _join(segments)
            segments = []
        segments.append({**{k: record[k] for k in (*_COPIED, *_TIMED)}, **encode_segment(record, visual, audio)})
    if segments:
        yield _join(segments)


def _join(segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Joins the encoded segments of one recording."""
    first = segments[0]
    return {k: v if k in _COPIED else np.concatenate([segment[k] for segment in segments]) for k, v in first.items()}


def _segment_key(source: shards.Shards, index: int) -> tuple[str, int]:
    name, segment = source.fields(index, ("recording", "segment"))
    return name, int(segment)
