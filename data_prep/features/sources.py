"""The tables of every recording: those of each stream and of the labels, matched by the recordings' names."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from data_prep.features import about, index, reading
from data_prep.features.labels import DIMENSIONS, path_of
from data_prep.features.rows import Part, at, listed
from data_prep.features.specs import StreamSpec, TableSpec
from data_prep.names import match, nearest
from data_prep.tables import TableError
from media.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sources:
    """What lies below the source.

    Attributes:
      names: of the recordings, sorted.
      streams: by stream and recording, one part per table, None for a missing one.
      labels: by recording, the part of each dimension, or one under "".
    """

    names: list[str]
    streams: dict[str, dict[str, list[Part | None]]]
    labels: dict[str, dict[str, Part]]


def find(
    root: pathlib.Path,
    streams: Sequence[StreamSpec],
    labels: TableSpec | None,
    listed_names: Sequence[str],
    exclude: str,
    max_missing: float,
    notes: list[str],
) -> Sources:
    """Finds the tables of every recording.

    Args:
      root: the folder that relative paths start from.
      streams: their tables.
      labels: the tables of labels; None if there are none.
      listed_names: recordings that a table lists. Without labels they are the recordings.
      exclude: patterns of recordings to leave out, separated by commas.
      max_missing: share of the recordings that a stream may lack.
      notes: gets what was understood that is not plain.

    Raises:
      UserError: a table is missing for too many recordings, or its name fits none.
    """
    found_labels = _labels(root, labels, notes) if labels else {}
    found = {(s.name, i): index.find(root, t, s.modality) for s in streams for i, t in enumerate(s.tables)}
    names = sorted(found_labels or listed_names or next(iter(found.values())).parts)
    everything = sorted({*names, *(name for one in found.values() for name in one.parts)})
    kept = set(about.excluded(everything, exclude))
    names, known = [name for name in names if name in kept], set(names)
    out: dict[str, dict[str, list[Part | None]]] = {stream.name: {} for stream in streams}
    unlabelled: dict[str, None] = {}
    for stream in streams:
        for number in range(len(stream.tables)):
            parts, said = found[stream.name, number].parts, found[stream.name, number].notes
            chosen, matched = match(names, list(parts), other_suffixes=reading.OF_RECORDINGS)
            notes += [f"{stream.name}: {note}" for note in [*said, *matched] if f"{stream.name}: {note}" not in notes]
            _check_missing(stream.name, names, chosen, parts, max_missing, notes)
            left = sorted((set(parts) - set(chosen.values()) - known) & kept)
            unlabelled |= dict.fromkeys(left)
            for name, file in (*sorted(chosen.items()), *((name, name) for name in left)):
                row = out[stream.name].setdefault(name, [None] * len(stream.tables))
                row[number] = parts[file]
    return Sources([*names, *sorted(unlabelled)], out, found_labels)


def _labels(root: pathlib.Path, spec: TableSpec, notes: list[str]) -> dict[str, dict[str, Part]]:
    if "{dimension}" not in spec.path:
        found = index.find(root, spec, "labels")
        notes += [f"labels: {note}" for note in found.notes]
        return {name: {"": part} for name, part in found.parts.items()}
    by_dimension = {}
    for dimension in DIMENSIONS:
        found = index.find(root, dataclasses.replace(spec, path=path_of(spec, dimension)), "labels")
        by_dimension[dimension] = found.parts
        notes += [f"labels: {note}" for note in found.notes if f"labels: {note}" not in notes]
    valence, arousal = (by_dimension[d] for d in DIMENSIONS)
    alone = sorted(set(valence) ^ set(arousal))
    if alone:
        part = (valence.get(alone[0]) or arousal[alone[0]]).path
        raise UserError(f"{part}: recording {alone[0]!r} lacks valence or arousal: add it, or move this file away.")
    return {name: {d: by_dimension[d][name] for d in DIMENSIONS} for name in valence}


def _check_missing(
    stream: str,
    names: Sequence[str],
    chosen: Mapping[str, str],
    parts: Mapping[str, Part],
    max_missing: float,
    notes: list[str],
) -> None:
    missing = [name for name in names if name not in chosen]
    if not missing:
        return
    near = nearest(missing[:1], set(parts) - set(chosen.values()))
    hint = f"; the nearest name is {near[missing[0]]!r}" if near else ""
    said = f"stream {stream} lacks {len(missing)} of {len(names)} recordings, such as {missing[0]!r}{hint}"
    if len(missing) > max_missing * len(names):
        some = next(iter(parts.values())).path
        raise UserError(f"{pathlib.Path(some).parent}: {said}: rename the files, or give --max_missing=1.")
    notes.append(f"{said}: it is masked there")


def columns(parts: Mapping[str, Sequence[Part | None]], number: int, spec: TableSpec) -> list[str]:
    """The features of a stream's table, the same in every recording.

    Raises:
      UserError: two recordings differ, or a file cannot be read.
    """
    first: tuple[str, list[str]] | None = None
    seen = set()
    for row in parts.values():
        part = row[number]
        if part is None or (part.path, part.member) in seen:
            continue
        seen.add((part.path, part.member))
        try:
            names = reading.feature_names(part, spec)
        except TableError as error:
            raise at(part.path, error) from error
        except OSError as error:
            raise UserError(f"{part.path} cannot be read: {error.strerror}.") from error
        if first is None:
            first = part.path, names
        elif names != first[1]:
            raise UserError(f"{part.path}: its columns are not those of {first[0]}: {_difference(names, first[1])}.")
    return first[1] if first else []


def _difference(names: Sequence[str], before: Sequence[str]) -> str:
    more, fewer = [n for n in names if n not in before], [n for n in before if n not in names]
    said = [f"it also has {listed(more)}"] if more else []
    said += [f"it lacks {listed(fewer)}"] if fewer else []
    return "; ".join(said) or "they stand in another order; choose them by cols="
