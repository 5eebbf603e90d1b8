"""The packed form of each kind of record: its arrays, which part of them an example is, and how rows are gathered.

Rows are gathered by the same code from NumPy's arrays on the host and from JAX's inside the compiled step.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avemo import configuration
from avemo.data import augment, examples, features
from avemo.data.examples import MEL_ROWS, Example
from media import small_jpeg

Arrays = Mapping[str, Any]  # NumPy's or JAX's
Rows = dict[str, Any]
_SAMPLED = 64  # records whose pictures tell the size at which a split is packed
_PICTURES: dict[str, tuple[int, ...]] = {"image": (), "images": (3,)}  # leading axes of an example's pictures
_WHOLE = ("label", "frames", "begin")  # of a table of recordings, the arrays that are not per frame


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the records of a training source become arrays.

    Attributes:
      recipe: all that the arrays follow from besides the records, as JSON values.
      example: `(record, generator, config) -> example`, not augmented: what `gather` gives, read from the record.
      pack: one record as arrays, whose leading axes are joined over the records.
      tables: the packed arrays, with what examples need besides.
      draw: `(tables, place, generator) -> (index, start)`, if an example is a part of a record. Otherwise an example is
        the record at that place.
      ready: tables that are in memory already, so that nothing is packed.
    """

    recipe: Mapping[str, Any]
    example: Callable[[Any, np.random.Generator | None, ConfigDict], Example]
    pack: Callable[[Any], Mapping[str, np.ndarray]]
    tables: Callable[[Arrays], Arrays] = dict
    draw: Callable[[Arrays, int, np.random.Generator], tuple[int, int]] | None = None
    ready: Arrays | None = None


def pictures(read: Callable[..., Example], records: Any, field: str, config: ConfigDict) -> Layout:
    """Faces or triplets, at the side that training needs before it crops.

    Args:
      read: `examples.face_example` or `examples.triplet_example`.
      records: the split.
      field: the field that holds the pictures.
      config: `model.image_size` and `data.augment.crop` are read.
    """
    needed = augment.side_before_crop(config.model.image_size, config.data.get("augment", {}))
    side = stored_side(records, field, needed)

    def example(record: Any, rng: np.random.Generator | None, config: ConfigDict) -> Example:
        return read(record, rng, config, side=side)

    def pack(record: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(value)[None] for name, value in example(record, None, config).items()}

    return Layout({"kind": field, "side": side, "jpeg_steps": small_jpeg.STEPS}, example, pack, _flat)


def _flat(packed: Arrays) -> Arrays:
    """Pictures as one row `[N, pixels]`: a TPU would pad an axis of three colours to 128."""
    return {name: x.reshape(len(x), -1) if name in _PICTURES else x for name, x in packed.items()}


def picture_rows(tables: Arrays, draws: Arrays) -> Rows:
    """Faces or triplets: what `examples.face_example` and `triplet_example` read from the records."""
    rows = {name: table[draws["index"]] for name, table in tables.items()}
    for name, leading in _PICTURES.items():
        if name in rows:
            count, pixels = rows[name].shape
            side = math.isqrt(pixels // 3 // math.prod(leading))
            rows[name] = rows[name].reshape(count, *leading, side, side, 3)
    return rows


def stored_side(records: Any, field: str, needed: int) -> int:
    """The side in pixels at which pictures are kept: `needed`, or less if none of some records is that large.

    It is up to a quarter more if all of those are of one size: that to which the decoder shrinks them, so that nothing
    is resized before the crop is.
    """
    sides: set[int] = set()
    for place in np.linspace(0, len(records) - 1, min(len(records), _SAMPLED)).astype(int):
        images = records[place][field]
        sides.update(*(images.sides(number) for number in range(len(images))))
    largest = max(sides)
    decoded = small_jpeg.shrunk(largest, needed)
    return decoded if len(sides) == 1 and decoded <= 1.25 * needed else min(needed, largest)


def sound(config: ConfigDict) -> Layout:
    """The log-mel and the targets of clips; `data.{windows, window_hop, delay}` are read."""

    def draw(tables: Arrays, place: int, rng: np.random.Generator) -> tuple[int, int]:
        frames, hop = int(tables["frames"][place]), int(tables["hop"][place])
        return place, examples.window_start(frames, hop, config.data.windows, rng)

    return Layout(
        {"kind": "sound"}, examples.window_example, _sound_record, lambda packed: _sound_tables(packed, config), draw
    )


def _sound_record(record: Any) -> dict[str, np.ndarray]:
    return {
        "log_mel": np.asarray(record["log_mel"], np.float32),
        "audio_index": np.asarray(record["audio_index"], np.int32),
        **{name: np.asarray(record[name], bool) for name in ("audio_mask", "target_mask")},
        "targets": np.asarray(record["targets"], np.float32),
        "frames": np.array([len(record["time"])], np.int32),
        "rows": np.array([len(record["log_mel"])], np.int32),
        "fps": np.array([record["fps"]], np.float64),
        "label": np.array([record["label"]], np.int32),
    }


def _sound_tables(packed: Arrays, config: ConfigDict) -> Arrays:
    frames, log_mel = packed["frames"], packed["log_mel"]
    if len(log_mel) < MEL_ROWS:  # clips without sound
        log_mel = np.zeros((MEL_ROWS, log_mel.shape[1] or 64), np.float32)
    return {
        "log_mel": log_mel,
        "audio_index": packed["audio_index"] + np.repeat(_begins(packed["rows"]), frames),
        **{name: packed[name] for name in ("audio_mask", "targets", "target_mask", "label", "frames")},
        "begin": _begins(frames),
        "hop": np.maximum(1, np.round(config.data.window_hop * packed["fps"])).astype(np.int32),
        "shift": np.maximum(0, np.round(config.data.delay * packed["fps"])).astype(np.int32),
    }


def sound_rows(tables: Arrays, draws: Arrays, count: int) -> Rows:
    """`count` windows per clip from its frame `start` on: what `examples.window_example` reads from the records."""
    index = draws["index"]
    xp = index.__array_namespace__()
    frames, begin, hop, shift = (tables[name][index][:, None] for name in ("frames", "begin", "hop", "shift"))
    frame = draws["start"][:, None] + hop * xp.arange(count, dtype=np.int32)[None]
    inside, frame = frame < frames, xp.minimum(frame, frames - 1)
    present = inside & tables["audio_mask"][begin + frame]
    row = xp.where(present, tables["audio_index"][begin + frame], np.int32(0))
    windows = tables["log_mel"][row[..., None] + xp.arange(MEL_ROWS, dtype=np.int32)[None, None]]
    later = frame + shift  # where the label of a frame was annotated
    annotated = begin + xp.minimum(later, frames - 1)
    labelled = (later < frames) & tables["target_mask"][annotated]
    return {
        "windows": xp.where(present[..., None, None], windows, np.float32(0)),
        "targets": xp.where(labelled[..., None], tables["targets"][annotated], np.float32(0)),
        "mask": present,
        "target_mask": present & labelled,
        "label": tables["label"][index],
    }


def sequences(
    recordings: Sequence[features.Recording], config: ConfigDict, chosen: Sequence[int] | None = None
) -> Layout:
    """Windows of recordings' features; `data.{sequence_length, sequence_hop, delay}` and `model.streams` are read.

    Args:
      recordings: those of the tables.
      config: the run's.
      chosen: numbers of the recordings that windows are drawn from; by default all.
    """
    data, streams = config.data, configuration.streams(config.model)
    places = list(range(len(recordings))) if chosen is None else list(chosen)
    whole = [features.sequence(recording, 0, len(recording), data.delay, streams) for recording in recordings]
    frames = np.array([len(recording) for recording in recordings], np.int32)
    windows = features.Windows([recordings[n] for n in places], data.sequence_length, data.sequence_hop)
    tables = {
        **{name: np.concatenate([row[name] for row in whole]) for name in whole[0] if name not in ("mask", "label")},
        "label": np.array([row["label"] for row in whole], np.int32),
        "frames": frames,
        "begin": _begins(frames),
    }

    def draw(tables: Arrays, place: int, rng: np.random.Generator) -> tuple[int, int]:
        number, start = windows.place(place)
        number = places[number]
        return number, features.moved_start(len(recordings[number]), start, rng, config)

    return Layout({"kind": "sequences"}, features.window_example, lambda record: {}, draw=draw, ready=tables)


def sequence_rows(tables: Arrays, draws: Arrays, length: int) -> Rows:
    """Windows of `length` frames from `start` on: what `features.sequence` cuts out of a recording."""
    index = draws["index"]
    xp = index.__array_namespace__()
    frames, begin = tables["frames"][index][:, None], tables["begin"][index][:, None]
    frame = draws["start"][:, None] + xp.arange(length, dtype=np.int32)[None]
    inside, at = frame < frames, begin + xp.minimum(frame, frames - 1)
    out: Rows = {"mask": inside, "label": tables["label"][index]}
    for name in tables:
        if name in _WHOLE:
            continue
        rows = tables[name][at]
        out[name] = xp.where(inside.reshape(*inside.shape, *(1,) * (rows.ndim - 2)), rows, np.zeros((), rows.dtype))
    return out


def _begins(lengths: np.ndarray) -> np.ndarray:
    """Where each of several parts begins, int32, if they lie one after another."""
    return (np.cumsum(lengths, dtype=np.int64) - lengths).astype(np.int32)
