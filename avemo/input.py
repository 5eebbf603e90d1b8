"""Shards to batches: deterministic by seed and step, one part per process, iterator state small enough to checkpoint.

Every pipeline is a `grain.MapDataset`, so batch number `k` is a pure function of (data, seed, k). With P processes,
process p builds rows p·B/P … (p+1)·B/P of the global batch of B: the same rows that one process would put there.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avemo import augment, mixture
from avemo.augment import resize
from avemo.errors import UserError
from avemo.shards import Images, Shards

Batch = dict[str, Any]
_ENDLESS = 1 << 32  # batches
MEL_ROWS = 96  # rows of one VGGish window: 0.96 s at 100 Hz


def _face(images: Images, index: int, rng: np.random.Generator | None, config: ConfigDict) -> np.ndarray:
    """One face of a record at the model's size; augmented where there is a generator."""
    size = config.model.image_size
    if rng is None:
        return resize(images.decode(index), size)
    # The decoder halves for free what would be shrunk anyway; a crop keeps at least 1 - crop of the side.
    strength = config.data.augment
    image = images.decode(index, at_least=round(size / (1 - strength.crop)))
    return augment.face(image, rng, strength, size)


def face_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Batch:
    """A `faces` record to one example: image uint8 `[S, S, 3]`, label int32, votes float32 `[C]`, valence, arousal."""
    return {
        "image": _face(record["image"], 0, rng, config),
        "label": np.int32(record["label"]),
        "votes": record["votes"].astype(np.float32),
        "valence": np.float32(record["valence"]),
        "arousal": np.float32(record["arousal"]),
    }


def triplet_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Batch:
    """A `triplets` record to one example: images uint8 `[3, S, S, 3]` with the odd one last, type int32 (0..2)."""
    odd = int(record["odd"])
    order = [i for i in range(3) if i != odd] + [odd]
    images = record["images"]
    return {
        "images": np.stack([_face(images, i, rng, config) for i in order]),
        "type": np.int32(record["type"]),
    }


def window_example(record: Mapping[str, Any], rng: np.random.Generator | None, config: ConfigDict) -> Batch:
    """A `clips` record to log-mel windows spread over it, with the targets of their frames.

    Returns windows float32 `[N, 96, 64]`, targets float32 `[N, 2]`, mask bool `[N]` (sound and target present), and the
    clip's label int32. N is `config.data.windows`, `config.data.window_hop` s apart; in training the start is random
    and the windows are moved over bands and masked (`config.data.augment.{spec_shift, spec_time, spec_freq}`), in
    evaluation they are centred in the clip and whole.
    """
    time, fps = record["time"], float(record["fps"])
    frames, count = len(time), config.data.windows
    hop = max(1, round(config.data.window_hop * fps))
    slack = max(0, frames - 1 - (count - 1) * hop)
    start = int(rng.integers(0, slack + 1)) if rng is not None else slack // 2
    index = start + hop * np.arange(count)
    inside = index < frames
    index = np.minimum(index, frames - 1)
    rows = record["audio_index"][index]
    present = inside & record["audio_mask"][index]
    windows = np.zeros((count, MEL_ROWS, record["log_mel"].shape[1]), np.float32)
    for i, (row, ok) in enumerate(zip(rows, present, strict=True)):
        if ok:
            windows[i] = record["log_mel"][row : row + MEL_ROWS]
    if rng is not None:
        strength = config.data.get("augment", {})
        windows = augment.shift_bands(windows, rng, strength.get("spec_shift", 0))
        windows = augment.spec_augment(windows, rng, strength.get("spec_time", 0), strength.get("spec_freq", 0))
    targets, target_mask = delayed_targets(record["targets"], record["target_mask"], config.data.delay, fps)
    return {
        "windows": windows,
        "targets": np.where(target_mask[index, None], targets[index], np.float32(0)),
        "mask": present,
        "target_mask": present & target_mask[index],
        "label": np.int32(record["label"]),
    }


def delayed_targets(targets: np.ndarray, mask: np.ndarray, delay: float, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Moves labels earlier by the raters' reaction delay, in seconds: frame t gets what was annotated at t + delay.

    Args:
      targets: float32 `[T, 2]`; mask: bool `[T]`; delay: s, ≥ 0; fps: Hz.

    Returns:
      targets `[T, 2]` and mask `[T]`; the last `delay` seconds have no label left and are masked.
    """
    shift = round(delay * fps)
    if shift <= 0:
        return targets, mask
    shift = min(shift, len(mask))
    moved, kept = np.zeros_like(targets), np.zeros_like(mask)
    moved[: len(mask) - shift], kept[: len(mask) - shift] = targets[shift:], mask[shift:]
    return moved, kept


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
      path: a prepared data set, or several with weights (`avemo.mixture`).
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


def pad_batch(batch: Mapping[str, Batch], multiple: int) -> dict[str, Batch]:
    """Pads each part `[B_part, ...]` to a multiple of rows with copies of its last row.

    A part that needs it gets a `weight` float32 `[rows]`, 0 for padding. Its rows count for no loss, metric or batch
    statistic, so that any batch size gives its own numbers on any number of devices.
    """
    out = {}
    for name, part in batch.items():
        size = len(next(iter(part.values())))
        padding = -size % multiple
        if padding:
            part = {k: np.concatenate([v, np.repeat(v[-1:], padding, 0)]) for k, v in part.items()}
            part["weight"] = (np.arange(size + padding) < size).astype(np.float32)
        out[name] = dict(part)
    return out


def without_padding(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part whose padded rows are unlabelled in every way that a loss reads: no label, no votes, no targets."""
    if "weight" not in part:
        return part
    real = part["weight"] > 0

    def masked(name: str, x: jax.Array) -> jax.Array:
        keep = real.reshape(-1, *(1,) * (x.ndim - 1))
        if name == "label":
            return jnp.where(keep, x, -1)
        if name in ("target_mask", "rater_mask", "votes"):
            return jnp.where(keep, x, jnp.zeros((), x.dtype))
        return x

    return {name: masked(name, x) for name, x in part.items()}


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


def padded_batches(examples: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of `size` examples, the last one padded (`pad_rows`)."""
    rows: list[Batch] = []
    for row in examples:
        rows.append(row)
        if len(rows) == size:
            yield pad_rows(rows, size)
            rows = []
    if rows:
        yield pad_rows(rows, size)


def pad_rows(rows: list[Batch], size: int) -> Batch:
    """Stacks examples and pads to `size` with copies of the last, whose `weight` is 0."""
    weight = np.zeros(size, np.float32)
    weight[: len(rows)] = 1
    rows = rows + [rows[-1]] * (size - len(rows))
    return {**{k: np.stack([row[k] for row in rows]) for k in rows[0]}, "weight": weight}


__all__ = [
    "MEL_ROWS",
    "Balanced",
    "Batch",
    "Images",
    "Source",
    "batch_records",
    "delayed_targets",
    "eval_batches",
    "face_example",
    "pad_batch",
    "pad_rows",
    "resize",
    "train_batches",
    "triplet_example",
    "window_example",
    "without_padding",
]
