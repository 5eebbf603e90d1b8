"""The tables of every recording: those of each stream and of the labels, matched by the recordings' names."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from data_prep.features import index, reading
from data_prep.features.labels import DIMENSIONS
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
    root: pathlib.Path, streams: Sequence[StreamSpec], labels: TableSpec, max_missing: float, notes: list[str]
) -> Sources:
    """Finds the tables of every recording.

    Raises:
      UserError: a table is missing for too many recordings, or its name fits none.
    """
    found_labels = _labels(root, labels, notes)
    names = sorted(found_labels)
    out: dict[str, dict[str, list[Part | None]]] = {}
    for stream in streams:
        out[stream.name] = {}
        for number, spec in enumerate(stream.tables):
            found = index.find(root, spec, stream.modality)
            notes += [f"{stream.name}: {note}" for note in found.notes]
            chosen, said = match(names, list(found.parts))
            notes += [f"{stream.name}: {note}" for note in said]
            _check_missing(stream.name, names, chosen, found.parts, max_missing, notes)
            for name, file in chosen.items():
                row = out[stream.name].setdefault(name, [None] * len(stream.tables))
                row[number] = found.parts[file]
    return Sources(names, out, found_labels)


def _labels(root: pathlib.Path, spec: TableSpec, notes: list[str]) -> dict[str, dict[str, Part]]:
    if "{dimension}" not in spec.path:
        found = index.find(root, spec, "labels")
        notes += [f"labels: {note}" for note in found.notes]
        return {name: {"": part} for name, part in found.parts.items()}
    by_dimension = {}
    for dimension in DIMENSIONS:
        found = index.find(root, dataclasses.replace(spec, path=spec.path.replace("{dimension}", dimension)), "labels")
        by_dimension[dimension] = found.parts
        notes += [f"labels: {note}" for note in found.notes if f"labels: {note}" not in notes]
    valence, arousal = (by_dimension[d] for d in DIMENSIONS)
    alone = sorted(set(valence) ^ set(arousal))
    if alone:
        part = (valence.get(alone[0]) or arousal[alone[0]]).path
        raise UserError(f"{part}: recording {alone[0]!r} lacks valence or arousal: add it, or exclude the recording.")
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
        if part is None or part.path in seen:
            continue
        seen.add(part.path)
        try:
            names = reading.columns(part, spec).feature_names
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
    said = [f"it has {listed(more)} besides"] if more else []
    said += [f"it lacks {listed(fewer)}"] if fewer else []
    return "; ".join(said) or "they stand in another order; choose them by cols="
