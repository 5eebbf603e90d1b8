"""Shards to batches: deterministic by seed and step, one part per process, iterator state small enough to checkpoint.

Every pipeline is a `grain.MapDataset`, so batch number `k` is a pure function of (data, seed, k). With P processes,
process p builds rows p·B/P … (p+1)·B/P of the global batch of B: the same rows that one process would put there.
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


class Balanced:
    """A labelled source in which every class is met equally often: rarer ones repeat. Unlabelled records are left out.

    An explicit switch (`data.balanced`), because a sampler changes what a published accuracy means.
    """

    def __init__(self, source: Shards):
        self._source, self.class_names = source, source.class_names
        labels = np.array([int(source.fields(index, ("label",))[0]) for index in range(len(source))])
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        if not classes:
            raise UserError(f"{source} has no label: data.balanced needs labelled faces.")
        longest = max(map(len, classes))
        self._order = np.stack([np.resize(members, longest) for members in classes], 1).ravel()

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"Balanced({self._source!r})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._order[int(index) % len(self)])]


@dataclasses.dataclass(frozen=True)
class Source:
    """One part of a batch: where its records lie, how one becomes an example, and its share of the batch.

    Attributes:
      path: a prepared data set, or several with weights (`avemo.data.mixture`).
      example: `(record, generator or None, config) -> example`.
      batch_size: examples of this part in a global batch.
      split: which split is read.
      open: `(folder, split) -> records`, random access.
    """

    path: str
    example: Callable[[Any, np.random.Generator | None, ConfigDict], Batch]
    batch_size: int
    split: str = "train"
    open: Callable[[str, str], Any] = Shards


def _check_example(source: "Source") -> Callable:
    def example(record: Any, rng: np.random.Generator | None, config: ConfigDict) -> Batch:
        try:
            return source.example(record, rng, config)
        except KeyError as error:
            raise UserError(
                f"{source.path} has no field {error}: it is a data set of another kind "
                f"(it has {', '.join(sorted(record))})."
            ) from error

    return example


def _read_from(place: tuple[Any, int]) -> Any:
    records, position = place
    return records[position]


def train_batches(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None = None
) -> grain.IterDataset:
    """Endless training batches `{part: {field: [B_part, ...]}}`, shuffled, augmented; resumable through `get_state`.

    A part that comes from several data sets takes from each its weight's share, at fixed places of the order and so in
    every stretch of it; each of them is shuffled and repeated on its own.

    Args:
      sources: the parts of a batch by name (`faces`, `triplets`, …), each with its own batch size.
      config: `seed`, `data.*`.
      opened: data already opened (random access), by part; otherwise `Shards` are opened.

    Raises:
      UserError: a batch size is not divisible by the number of processes, a strength is out of range, or data sets of
        one part do not go together.
    """
    processes, process = jax.process_count(), jax.process_index()
    augment.check(config.data.get("augment", {}))
    parts = []
    for name, source, members, seed in _parts(sources, config, opened):
        if source.batch_size % processes:
            raise UserError(f"batch size {source.batch_size} of {name!r} is not divisible by {processes} processes.")
        example = _check_example(source)
        order, read = _ordered(members, seed)
        dataset = order.random_map(lambda place, rng, example=example, read=read: example(read(place), rng, config))
        dataset = dataset.batch(source.batch_size // processes, drop_remainder=True)
        # Endless but of one length: grain zips nothing else.
        parts.append(dataset.slice(slice(process, _ENDLESS * processes + process, processes)))
    names = sorted(sources)
    joined = grain.experimental.ZipMapDataset(parts) if len(parts) > 1 else parts[0]
    combine = (
        (lambda values: dict(zip(names, values, strict=True))) if len(parts) > 1 else (lambda value: {names[0]: value})
    )
    return joined.map(combine).to_iter_dataset(
        grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch)
    )


def _parts(
    sources: Mapping[str, Source], config: ConfigDict, opened: Mapping[str, Any] | None
) -> Iterator[tuple[str, Source, list[tuple[Any, float]], int]]:
    """Name, source, data sets with their weights, and seed of each part of a batch, in the order of their names."""
    for number, (name, source) in enumerate(sorted(sources.items())):
        data = (opened or {}).get(name)
        members = [(data, 1.0)] if data is not None else mixture.members(source.path, source.split, source.open)
        yield name, source, members, config.seed + 1000 * number


def _ordered(members: list[tuple[Any, float]], seed: int) -> tuple[grain.MapDataset, Callable[[Any], Any]]:
    """The endless order of places in which a part's data is met, and what reads the record at a place."""
    # Over positions, not over records: grain would look into each of those to count its bytes.
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
    """Which records are in global batch `number` (from 0) of `train_batches`: `{part: [{"index", "name"}, ...]}`.

    `index` is the position in the part's data (of several data sets, in the one it comes from), `name` the record's own
    name where it has one.
    """
    out = {}
    for name, source, members, seed in _parts(sources, config, opened):
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
    """All examples of a split once, in order, in batches of `source.batch_size`; the last is padded.

    Of several data sets, each that has the split is read, one after another. Yields dicts of arrays with an added
    float32 `weight` `[B]`: 1 for an example, 0 for padding.
    """
    data = mixture.open_split(source.path, source.split)
    example = _check_example(source)
    dataset = grain.MapDataset.source(data).map(lambda record: example(record, None, config))
    options = grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=4 * source.batch_size)
    yield from padded_batches(dataset.to_iter_dataset(options), source.batch_size)
