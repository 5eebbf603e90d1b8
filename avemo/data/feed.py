"""Decides where the data of a run lies while it trains, packs it, and makes the batches.

A stream is on the devices, packed on the host, or read from its records (`avemo.data.residency`). The examples of every
batch are the same in all three; only the work that is left for the host differs.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from avemo.data import packed, pipeline, residency, shards
from avemo.data.layouts import Arrays, Layout, Rows
from avemo.data.pipeline import Resident, Source, Stream
from avemo.data.residency import Residency
from media.errors import UserError

logger = logging.getLogger(__name__)
_SAMPLED = 16  # records whose packed size tells that of a split
_WHERE = {"device": "on the devices", "host": "packed on the host", "off": "from the shards"}
_BY_DISTANCE = ("off", "host", "device")  # the farthest first


@dataclasses.dataclass(frozen=True)
class Feed:
    """The input of a training run.

    Attributes:
      batches: this process's batches; a stream on the devices gives `index` and `start` of its examples.
      tables: arrays by stream that the devices have to hold.
      modes: where each stream lies: "device", "host" or "off".
    """

    batches: pipeline.Batches
    tables: dict[str, Arrays]
    modes: dict[str, str]


def open_feed(
    sources: Mapping[str, Source],
    config: ConfigDict,
    gather: Callable[[str, Arrays, Arrays], Rows],
    opened: Mapping[str, Any] | None = None,
    before: Mapping[str, str] | None = None,
) -> Feed:
    """Opens the input of a run, and says in one line per stream where its data lies and why.

    Args:
      sources: the training source of each stream.
      config: `data.resident` (absent: auto), `steps` and what the sources read.
      gather: `(stream, tables, draws) -> rows`, the stage's.
      opened: data that is open already, by stream.
      before: where the streams lay before the run was interrupted. `auto` keeps to it, because another place is another
        program, whose results may differ in the last bit.

    Raises:
      UserError: `data.resident` asks for what cannot be done, or the data cannot be read.
    """
    streams = pipeline.open_streams(sources, config, opened)
    resident: dict[str, Resident] = {}
    tables: dict[str, Arrays] = {}
    modes: dict[str, str] = {}
    taken = 0
    for stream in streams:
        found, arrays = _place(stream, config, (before or {}).get(stream.name), taken)
        mode = modes[stream.name] = _agreed(found.mode)
        logger.info("input: %s %s (%s).", stream.name, _WHERE[mode], found.reason)
        if mode == "device":
            resident[stream.name], tables[stream.name] = Resident(arrays, None), arrays
            taken += _size(arrays)
        elif mode == "host":
            resident[stream.name] = Resident(arrays, functools.partial(gather, stream.name))
    return Feed(pipeline.join(streams, config, resident), tables, modes)


def _place(stream: Stream, config: ConfigDict, before: str | None, taken: int) -> tuple[Residency, Arrays]:
    """Where a stream lies, and its tables unless that is "off"; `taken` bytes of each device are spoken for."""
    wanted, layout = config.data.get("resident", "auto"), stream.layout
    if layout is None:
        return residency.without_layout(wanted, stream.name), {}
    nbytes = _estimate(stream, layout) if wanted != "off" else 0  # which reads some records
    decide = functools.partial(
        residency.decide,
        nbytes=nbytes,
        device_bytes=residency.device_memory(taken),
        host_bytes=residency.host_memory(),
    )
    found = decide(wanted)
    if wanted == "auto" and before in residency.MODES:
        with contextlib.suppress(UserError):
            found = residency.Residency(decide(before).mode, "as when the run began")
    if found.mode == "off" or layout.ready is not None:
        return found, layout.ready or {}
    recipe = _recipe(stream, layout)
    drawn = config.steps * stream.source.batch_size
    if wanted == "auto" and drawn < len(stream.records) and packed.find(recipe.folder, recipe.values) is None:
        return residency.not_worth_it(drawn, len(stream.records)), {}
    try:
        with _first_process_first():
            return found, layout.tables(_packed(stream, layout, recipe, nbytes).arrays)
    except packed.CannotWrite as error:
        if wanted != "auto":
            raise
        return residency.not_written(error), {}


@dataclasses.dataclass(frozen=True)
class _Recipe:
    folder: epath.Path
    values: dict[str, Any]


def _recipe(stream: Stream, layout: Layout) -> _Recipe:
    """What the packed arrays of a stream follow from, and the data set beside which they lie."""
    records = stream.records
    folders = getattr(records, "folders", None) or [records.folder]
    prints = [shards.fingerprint(folder) for folder in folders]
    return _Recipe(folders[0], {"fingerprints": prints, "split": stream.source.split, **layout.recipe})


def _estimate(stream: Stream, layout: Layout) -> int:
    """Bytes of a stream's tables, from a few of its records."""
    if layout.ready is not None:
        return _size(layout.ready)
    records = stream.records
    places = np.linspace(0, len(records) - 1, min(len(records), _SAMPLED)).astype(int)
    return round(sum(_size(layout.pack(records[place])) for place in places) / len(places) * len(records))


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _packed(stream: Stream, layout: Layout, recipe: _Recipe, nbytes: int) -> packed.Packed:
    def chunks() -> Iterator[packed.Chunk]:
        logger.info("%s: packing %d records, once.", stream.name, len(stream.records))
        return pack(stream.records, layout)

    return packed.open_or_pack(recipe.folder, recipe.values, chunks, nbytes)


def pack(records: Any, layout: Layout) -> Iterator[packed.Chunk]:
    """The packed arrays of a split, some records at a time."""
    workers = os.cpu_count() or 1  # decoding leaves Python's lock alone
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for begin in range(0, len(records), 16 * workers):
            places = range(begin, min(begin + 16 * workers, len(records)))
            rows = list(pool.map(functools.partial(_packed_record, records, layout), places))
            yield {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _packed_record(records: Any, layout: Layout, place: int) -> Mapping[str, np.ndarray]:
    try:
        return layout.pack(records[place])
    except OSError as error:  # which would pass for one of writing
        raise UserError(f"record {place} of {records} cannot be read ({error.strerror or error}).") from error


@contextlib.contextmanager
def _first_process_first() -> Iterator[None]:
    """Lets the first process pack while the others wait; on a shared disk these then find what it made."""
    several = jax.process_count() > 1
    if several and jax.process_index() != 0:
        multihost_utils.sync_global_devices("packed")
    try:
        yield
    finally:
        if several and jax.process_index() == 0:
            multihost_utils.sync_global_devices("packed")


def _agreed(mode: str) -> str:
    """The mode that all processes can have: their programs must be the same."""
    if jax.process_count() == 1:
        return mode
    found = multihost_utils.process_allgather(np.int32(_BY_DISTANCE.index(mode)))
    return _BY_DISTANCE[int(np.min(found))]
