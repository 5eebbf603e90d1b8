"""From shards to batches: deterministic by seed and step, shared by processes, with a small state to checkpoint.

Every pipeline is a `grain.MapDataset`, so batch number `k` is a pure function of (data, seed, k). With P processes,
process p builds rows p·B/P … (p+1)·B/P of the global batch of B, the same rows that a single process would put there.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from avemo.data import mixture
from avemo.data.padding import Batch, padded_batches
from avemo.data.shards import Shards
from media import augment
from media.errors import UserError

_ENDLESS = 1 << 32  # batches
MakeExample = Callable[[Any, np.random.Generator | None, ConfigDict], Batch]


class Balanced:
    """A labelled source with every class equally often: rarer classes repeat, unlabelled records are left out.

    It is an explicit switch (`data.balanced`), because a sampler changes the meaning of a published accuracy.
    """

    def __init__(self, source: Shards) -> None:
        self._source, self.class_names = source, source.class_names
        labels = np.array([int(source.fields(index, ("label",))[0]) for index in range(len(source))])
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        if not classes:
            raise UserError(f"{source} has no label: data.balanced needs labelled faces; set it to False.")
        longest = max(map(len, classes))
        self._order = np.stack([np.resize(places, longest) for places in classes], 1).ravel()

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"Balanced({self._source!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._order[int(index) % len(self)])]


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of examples: where its records are, how a record becomes an example, and how many a batch has.

    Attributes:
      path: a prepared data set, or several with weights (`avemo.data.mixture`).
      example: `(record, generator or None, config) -> example`.
      batch_size: examples of this source in a global batch.
      split: the split to read.
      open: `(folder, split) -> records` with random access.
    """

    path: str
    example: MakeExample
    batch_size: int
    split: str = "train"
    open: Callable[[str, str], Any] = Shards


def _checked_example(source: Source) -> MakeExample:
    def example(record: Any, rng: np.random.Generator | None, config: ConfigDict) -> Batch:
        try:
            return source.example(record, rng, config)
        except KeyError as error:
            raise UserError(
                f"{source.path} has no field {error}: name a data set of the right kind "
                f"(this one has {', '.join(sorted(record))})."
            ) from error

    return example


def _read_from(place: tuple[Any, int]) -> Any:
    records, position = place
    return records[position]


def train_batches(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None = None
) -> grain.IterDataset:
    """Endless training batches `{source: {field: [B_source, ...]}}`, shuffled, augmented, resumable by `get_state`.

    A source made of several data sets takes from each in proportion to its weight, evenly along the order. Each data
    set is shuffled and repeated independently.

    Args:
      sources: the sources of a batch by name (`faces`, `triplets`, …), each with its batch size.
      config: `seed` and `data.*` are read.
      opened: data that is already open (random access), by source; the others are opened by `Source.open`.

    Raises:
      UserError: a batch size is not divisible by the number of processes, an augmentation strength is out of range, or
        the data sets of a source cannot be mixed.
    """
    processes, process = jax.process_count(), jax.process_index()
    augment.check(config.data.get("augment", {}))
    streams = []
    for name, source, members, seed in _open_sources(sources, config, opened):
        if source.batch_size % processes:
            raise UserError(
                f"data.batch.{name}={source.batch_size} is not divisible by {processes} processes: set a multiple."
            )
        example = _checked_example(source)
        order, read = _ordered(members, seed)
        dataset = order.random_map(lambda place, rng, example=example, read=read: example(read(place), rng, config))
        dataset = dataset.batch(source.batch_size // processes, drop_remainder=True)
        # All streams have the same huge length, because grain zips only data sets of equal length.
        streams.append(dataset.slice(slice(process, _ENDLESS * processes + process, processes)))
    names = sorted(sources)
    if len(streams) == 1:
        joined = streams[0].map(lambda value: {names[0]: value})
    else:
        joined = grain.experimental.ZipMapDataset(streams).map(lambda values: dict(zip(names, values, strict=True)))
    return joined.to_iter_dataset(
        grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch)
    )


def _open_sources(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None
) -> Iterator[tuple[str, Source, list[tuple[Any, float]], int]]:
    """Yields each source in the order of their names: name, source, data sets with their weights, and seed."""
    for number, (name, source) in enumerate(sorted(sources.items())):
        data = (opened or {}).get(name)
        members = [(data, 1.0)] if data is not None else mixture.open_members(source.path, source.split, source.open)
        yield name, source, members, config.seed + 1000 * number


def _ordered(members: list[tuple[Any, float]], seed: int) -> tuple[grain.MapDataset, Callable[[Any], Any]]:
    """Returns the endless order of places in a source's data, and a function that reads the record at a place."""
    # The order is over positions, because grain would inspect records to count their bytes.
    streams = [
        grain.MapDataset.range(len(records)).seed(seed + 100_000 * member).shuffle().repeat()
        for member, (records, _) in enumerate(members)
    ]
    if len(streams) == 1:
        return streams[0], members[0][0].__getitem__
    streams = [
        stream.map(lambda position, records=records: (records, position))
        for stream, (records, _) in zip(streams, members, strict=True)
    ]
    return grain.MapDataset.mix(streams, [weight for _, weight in members]).seed(seed), _read_from


def batch_records(
    sources: Mapping[str, Source], config: ConfigDict, number: int, opened: Mapping[str, Any] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The records in global batch `number` (from 0) of `train_batches`: `{source: [{"index", "name"}, ...]}`.

    `index` is the position in the data set that the record comes from. `name` is the record's name, or None.
    """
    out = {}
    for name, source, members, seed in _open_sources(sources, config, opened):
        order, read = _ordered(members, seed)
        places = [order[number * source.batch_size + row] for row in range(source.batch_size)]
        out[name] = [
            {"index": int(place[1] if isinstance(place, tuple) else place), "name": _record_name(read(place))}
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
    example = _checked_example(source)
    dataset = grain.MapDataset.source(data).map(lambda record: example(record, None, config))
    options = grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=4 * source.batch_size)
    yield from padded_batches(dataset.to_iter_dataset(options), source.batch_size)
