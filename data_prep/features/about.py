"""What is known of each recording besides its tables: its split, subject, group and class."""

import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence

from data_prep import tables
from data_prep.features import reading
from data_prep.names import match, nearest
from media.errors import UserError, unknown
from media.records import CLASSES

SPLITS = ("train", "dev", "test")
# How tables and the names of recordings say their split.
WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NAMES = ("name", "recording", "file", "filename", "file_name", "video", "id", "clip")
_COLUMNS = {
    **dict.fromkeys(("split", "partition", "proposal", "set", "fold"), "split"),
    **dict.fromkeys(("subject", "speaker", "participant", "speaker_id"), "subject"),
    **dict.fromkeys(("group", "culture", "session", "language"), "group"),
    **dict.fromkeys(("label", "emotion", "class"), "label"),
}


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a recording; "" where it is not."""

    split: str = ""
    subject: str = ""
    group: str = ""
    label: str = ""


def read(path: pathlib.Path) -> dict[str, About]:
    """Reads a table with a line per recording: its name, and any of split, subject, group and label.

    Raises:
      UserError: the table cannot be used; its line and the remedy are named.
    """
    try:
        table = tables.read(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except tables.TableError as error:
        raise UserError(f"{path}: {error}.") from error
    lower = [name.lower() for name in table.header]
    key = next((lower.index(name) for name in _NAMES if name in lower), 0)
    places = {_COLUMNS[name]: i for i, name in enumerate(lower) if name in _COLUMNS and i != key}
    if not places:
        raise UserError(f"{path}: line 1: no column split, subject, group or label (it has {', '.join(table.header)}).")
    out: dict[str, About] = {}
    for number, cells in table.rows:
        name = cells[key].strip("'\"")
        row = About(**{column: cells[place] for column, place in places.items()})
        if row.split and row.split.lower() not in WORDS:
            raise UserError(f"{path}, line {number}: split {row.split!r} is not train, dev or test: rename it.")
        row = dataclasses.replace(row, split=WORDS.get(row.split.lower(), ""))
        if out.setdefault(name, row) != row:
            raise UserError(
                f"{path}, line {number}: {name!r} stands in an earlier line, with other values: remove one."
            )
    return out


def onto(names: Collection[str], table: Mapping[str, About], path: pathlib.Path, notes: list[str]) -> dict[str, About]:
    """The lines of a table for recordings, whose names may differ in case, accents or suffix.

    Raises:
      UserError: a recording is in no line.
    """
    found, said = match(list(names), list(table), other_suffixes=reading.OF_RECORDINGS)
    notes += [f"{path.name}: {note}" for note in said]
    missing = sorted(set(names) - set(found))
    if missing:
        near = nearest(missing[:1], set(table))
        hint = f"; the nearest is {near[missing[0]]!r}" if near else ""
        raise UserError(f"{path}: recording {missing[0]!r} is in no line{hint}: add it, or exclude the recording.")
    return {name: table[line] for name, line in found.items()}


def picked(option: str, pattern: str, name: str) -> str:
    """What a pattern finds in a recording's name: its first group, or all of it.

    Raises:
      UserError: it finds nothing.
    """
    if not pattern:
        return ""
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--{option}={pattern} is no regular expression: {error}.") from error
    if not found:
        raise UserError(f"--{option}={pattern} does not match recording {name!r}: change the pattern.")
    return found[1] if found.re.groups else found[0]


def split_by_name(name: str) -> str:
    """The split that a recording's name begins with, as in train_1 or Devel_DE_01; "" if it does not."""
    word = re.match("[a-z]*", name.rpartition("/")[2].lower())
    return WORDS.get(word[0] if word else "", "")


def splits(
    known: Mapping[str, About], split: str, folds: int, fold: int, hold_out: str, labelled: Collection[str]
) -> dict[str, str]:
    """The split of every recording.

    The first of these that is given decides: groups to hold out, folds, one split for all, the table's column, the
    names. For recordings without labels only the last two count, and "" is a split that nothing says.

    Args:
      known: what is known of each recording, in order.
      split: the split of all recordings, or "".
      folds, fold: if `folds` is above 0, the subjects, or else recordings, at positions `fold` modulo `folds` are dev.
      hold_out: groups, separated by commas, that are dev; all others are train.
      labelled: recordings that have labels.

    Raises:
      UserError: a recording's split is not said, or a group does not exist.
    """
    rated = [name for name in known if name in labelled]
    out = {name: known[name].split or split_by_name(name) for name in known if name not in labelled}
    if hold_out:
        groups = sorted({known[name].group for name in rated} - {""})
        held = hold_out.split(",")
        for group in held:
            if group not in groups:
                raise unknown("group in --hold_out", group, groups)
        return out | {name: "dev" if known[name].group in held else "train" for name in rated}
    if folds:
        units = sorted({known[name].subject or name for name in rated})
        if folds > len(units):
            raise UserError(f"--folds={folds} is too many: there are only {len(units)} subjects or recordings.")
        return out | {
            name: "dev" if units.index(known[name].subject or name) % folds == fold else "train" for name in rated
        }
    for name in rated:
        said = split or known[name].split or split_by_name(name)
        if not said:
            raise UserError(
                f"the name of recording {name!r} does not say its split: give --table with a column split, --folds, "
                "--hold_out, or --split=train."
            )
        out[name] = said
    return out


def classes(known: Mapping[str, About]) -> list[str]:
    """The classes in order: the eight canonical ones if they include the labels, otherwise the labels, sorted."""
    found = sorted({about.label for about in known.values()} - {""})
    return list(CLASSES) if set(found) <= set(CLASSES) else found


def excluded(names: Sequence[str], patterns: str) -> list[str]:
    """The names that no pattern, of those separated by commas, leaves out.

    Raises:
      UserError: a pattern matches no name.
    """
    barred = [pattern for pattern in patterns.split(",") if pattern]
    for pattern in barred:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--exclude={pattern} matches no recording: correct the name.")
    return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in barred)]
