"""From shards to batches: deterministic by seed and step, shared by processes, with a small state to checkpoint.

Every pipeline is a `grain.MapDataset`, so batch number `k` is a pure function of (data, seed, k). With P processes,
process p builds rows p·B/P … (p+1)·B/P of the global batch of B, the same rows that a single process would put there.

Which examples a batch holds is drawn in the same way wherever the data lies. A source that is resident on the devices
gives their numbers alone; one that is packed on the host gathers them; any other reads and decodes its records.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from avemo.data import augment, mixture, order, worker_processes
from avemo.data.layouts import Arrays, Layout, Rows
from avemo.data.padding import Batch, padded_batches
from avemo.data.shards import Shards
from media.errors import UserError

logger = logging.getLogger(__name__)
_ENDLESS = 1 << 32  # batches
MakeExample = Callable[[Any, np.random.Generator | None, ConfigDict], Batch]
Gather = Callable[[Arrays, Arrays], Rows]


class Batches(Protocol):
    """An iterator over batches, with a position."""

    def __iter__(self) -> "Batches": ...

    def __next__(self) -> Any: ...

    def get_state(self) -> Any:
        """The position, as JSON values."""

    def set_state(self, state: Any) -> None:
        """Goes on at a position."""

    def close(self) -> None:
        """Ends threads and processes."""


class Balanced:
    """A labelled source with every class equally often: rarer classes repeat, unlabelled records are left out.

    It is an explicit switch (`data.balanced`), because a sampler changes the meaning of a published accuracy.
    """

    def __init__(self, source: Shards) -> None:
        self.source, self.class_names = source, source.class_names
        labels = np.array([int(source.fields(index, ("label",))[0]) for index in range(len(source))])
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        if not classes:
            raise UserError(f"{source} has no label: data.balanced needs labelled faces; set it to False.")
        longest = max(map(len, classes))
        self._order = np.stack([np.resize(places, longest) for places in classes], 1).ravel()

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"Balanced({self.source!r})"

    def place(self, index: int) -> int:
        """The place in `source` of the record that is drawn at `index`."""
        return int(self._order[int(index) % len(self)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.place(index)]


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of examples: where its records are, how a record becomes an example, and how many a batch has.

    Attributes:
      path: a prepared data set, or several with weights (`avemo.data.mixture`).
      example: `(record, generator or None, config) -> example`.
      batch_size: examples of this source in a global batch.
      split: the split to read.
      open: `(folder, split) -> records` with random access.
      layout: how training reads and packs the records, given them; without it `example` reads them, and they stay in
        the shards.
    """

    path: str
    example: MakeExample
    batch_size: int
    split: str = "train"
    open: Callable[[str, str], Any] = Shards
    layout: Callable[[Any], Layout] | None = None


@dataclasses.dataclass(frozen=True)
class Resident:
    """A source whose examples are gathered from packed arrays.

    Attributes:
      tables: the arrays.
      gather: gathers rows on the host; None if that happens on the devices, which hold the arrays too.
    """

    tables: Arrays
    gather: Gather | None


def checked(source: Source, example: Callable[..., Any]) -> Callable[..., Any]:
    """`example(record, ...)`, which says so if the records have not the fields that it reads."""

    def call(record: Any, *arguments: Any) -> Any:
        try:
            return example(record, *arguments)
        except KeyError as error:
            raise UserError(
                f"{source.path} has no field {error}: name a data set of the right kind "
                f"(this one has {', '.join(sorted(record))})."
            ) from error

    return call


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A source that is open for training.

    Attributes:
      name: the stream's name in a batch.
      source: where it comes from.
      members: its data sets and their weights.
      seed: of its order.
      config: the run's config.
    """

    name: str
    source: Source
    members: Sequence[tuple[Any, float]]
    seed: int
    config: ConfigDict

    @functools.cached_property
    def records(self) -> Any:
        """The records of all data sets, one data set after another."""
        found = [records.source if isinstance(records, Balanced) else records for records, _ in self.members]
        return found[0] if len(found) == 1 else mixture.Joined(found)

    @functools.cached_property
    def layout(self) -> Layout | None:
        """How its records are packed, if they can be."""
        if self.source.layout is None:
            return None
        made = self.source.layout(self.records)
        return dataclasses.replace(
            made, example=checked(self.source, made.example), pack=checked(self.source, made.pack)
        )

    def order(self) -> grain.MapDataset:
        """The endless order of the places of `records`."""
        # The order is over positions, because grain would inspect records to count their bytes.
        streams, begin = [], 0
        for number, (records, _) in enumerate(self.members):
            stream = order.shuffled(len(records), self.seed + 100_000 * number).repeat()
            balanced = isinstance(records, Balanced)
            if balanced or len(self.members) > 1:
                place = records.place if balanced else int
                stream = stream.map(lambda position, place=place, begin=begin: begin + place(position))
            streams.append(stream)
            begin += len(records.source if balanced else records)
        if len(streams) == 1:
            return streams[0]
        return grain.MapDataset.mix(streams, [weight for _, weight in self.members]).seed(self.seed)

    def batches(self, size: int, resident: Resident | None) -> grain.MapDataset:
        """Batches of `size` examples: `{field: [size, ...]}`, or `{"index", "start"}` int32 `[size]` of them."""
        if resident is None:
            example = self.layout.example if self.layout else checked(self.source, self.source.example)
            read, config = self.records.__getitem__, self.config
            if self.layout and self.layout.draw is None:  # a generator for each example takes as long as reading it
                examples = self.order().map(lambda place: example(read(place), None, config))
            else:
                examples = self.order().random_map(lambda place, rng: example(read(place), rng, config))
            return examples.batch(size, drop_remainder=True)
        assert self.layout is not None, "only a source with a layout is resident"
        draw, tables, gather = self.layout.draw, resident.tables, resident.gather
        if draw is None:
            drawn = self.order().batch(size, drop_remainder=True, batch_fn=_records_drawn)
        else:
            pairs = self.order().random_map(lambda place, rng: draw(tables, place, rng))
            drawn = pairs.batch(size, drop_remainder=True, batch_fn=_parts_drawn)
        return drawn if gather is None else drawn.map(lambda draws: gather(tables, draws))


def _records_drawn(places: Sequence[int]) -> dict[str, np.ndarray]:
    return {"index": np.array(places, np.int32)}


def _parts_drawn(pairs: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
    index, start = np.array(pairs, np.int32).T
    return {"index": index.copy(), "start": start.copy()}


def open_streams(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None = None
) -> list[Stream]:
    """Opens the sources in the order of their names.

    Args:
      sources: the sources of a batch by name (`faces`, `triplets`, …), each with its batch size.
      config: `seed` and `data.*` are read.
      opened: data that is already open (random access), by source; the others are opened by `Source.open`.

    Raises:
      UserError: a data set is missing, or the data sets of a source cannot be mixed.
    """
    streams = []
    for number, (name, source) in enumerate(sorted(sources.items())):
        data = (opened or {}).get(name)
        members = [(data, 1.0)] if data is not None else mixture.open_members(source.path, source.split, source.open)
        streams.append(Stream(name, source, members, config.seed + 1000 * number, config))
    return streams


def train_batches(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None = None
) -> Batches:
    """Batches of sources that are read from their records: `join` of `open_streams`."""
    return join(open_streams(sources, config, opened), config, {})


def join(streams: Sequence[Stream], config: ConfigDict, resident: Mapping[str, Resident]) -> Batches:
    """Endless training batches `{stream: {field: [B_stream, ...]}}`, shuffled, resumable by `get_state`.

    They are decoded in threads of this process, or in others (`data.workers`); the batches are the same.

    A source made of several data sets takes from each in proportion to its weight, evenly along the order. Each data
    set is shuffled and repeated independently.

    Args:
      streams: the open sources.
      config: `data.*` is read.
      resident: the streams that are gathered from packed arrays; the others are read from their records.

    Raises:
      UserError: a batch size is not divisible by the number of processes, an augmentation strength is out of range, or
        `data.workers` is no number.
    """
    processes, process = jax.process_count(), jax.process_index()
    augment.check(config.data.get("augment", {}))
    parts = {}
    for stream in streams:
        size = stream.source.batch_size
        if size % processes:
            raise UserError(
                f"data.batch.{stream.name}={size} is not divisible by {processes} processes: set a multiple."
            )
        batches = stream.batches(size // processes, resident.get(stream.name))
        # All streams have the same huge length, because grain zips only data sets of equal length.
        parts[stream.name] = batches.slice(slice(process, _ENDLESS * processes + process, processes))
    decoded = [name for name in parts if name not in resident]
    workers = worker_processes.count(config.data.get("workers", 0)) if decoded else 0
    if not workers:
        return iter(_in_threads(parts, config))
    here = {name: batches for name, batches in parts.items() if name in resident}
    there = _joined({name: parts[name] for name in decoded})
    ahead = -(-config.data.prefetch // workers)
    logger.info("input: %s decoded in %d processes.", " and ".join(decoded), workers)
    made = worker_processes.WorkerBatches(there, workers, ahead)
    return SideBySide([made, iter(_in_threads(here, config))]) if here else made


def _joined(parts: Mapping[str, grain.MapDataset]) -> grain.MapDataset:
    """Batches of several streams as one."""
    names = list(parts)
    if len(parts) == 1:
        return parts[names[0]].map(lambda value: {names[0]: value})
    streams = list(parts.values())
    return grain.experimental.ZipMapDataset(streams).map(lambda values: dict(zip(names, values, strict=True)))


def _in_threads(parts: Mapping[str, grain.MapDataset], config: ConfigDict) -> grain.IterDataset:
    options = grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch)
    return _joined(parts).to_iter_dataset(options)


class SideBySide:
    """Iterators over parts of the same batches, as one iterator over the batches."""

    def __init__(self, parts: Sequence[Batches]):
        self._parts = parts

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Batch]:
        return {name: rows for part in self._parts for name, rows in next(part).items()}

    def get_state(self) -> Any:
        """The position, the same in every part."""
        return self._parts[0].get_state()

    def set_state(self, state: Any) -> None:
        """Goes on at a position."""
        for part in self._parts:
            part.set_state(state)

    def close(self) -> None:
        """Ends what the parts have running."""
        for part in self._parts:
            part.close()


def batch_records(
    sources: Mapping[str, Source], config: ConfigDict, number: int, opened: Mapping[str, Any] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The records in global batch `number` (from 0) of `train_batches`: `{source: [{"index", "name"}, ...]}`.

    `index` is the position in the data set that the record comes from. `name` is the record's name, or None.
    """
    out = {}
    for stream in open_streams(sources, config, opened):
        order, records, size = stream.order(), stream.records, stream.source.batch_size
        places = [int(order[number * size + row]) for row in range(size)]
        out[stream.name] = [
            {
                "index": records.locate(place)[1] if isinstance(records, mixture.Joined) else place,
                "name": _record_name(records[place]),
            }
            for place in places
        ]
    return out


def _record_name(record: Any) -> str | None:
    if isinstance(record, tuple):  # a window of a recording
        return f"{record[0].name} from frame {record[1]}"
    name = record.get("name", record.get("recording"))
    return f"{name} segment {int(record['segment'])}" if "segment" in record else name


def eval_batches(source: Source, config: ConfigDict) -> Iterator[Batch]:
    """Yields all examples of a split once, in order, in batches of `source.batch_size`; the last one is padded.

    If the source has several data sets, each that has the split is read in turn. A batch is a dict of arrays with an
    added `weight` float32 `[B]`: 1 for an example, 0 for padding.
    """
    data = mixture.open_split(source.path, source.split)
    example = checked(source, source.example)
    dataset = grain.MapDataset.source(data).map(lambda record: example(record, None, config))
    options = grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=4 * source.batch_size)
    yield from padded_batches(dataset.to_iter_dataset(options), source.batch_size)
