"""The words of the command line: which tables make which stream, and how they are read.

    --audio=egemaps,mfcc:rate=100:align=mean       two streams, egemaps and mfcc
    --visual=openface:cols=AU*|pose_*|!AU28_c      one stream, visual, of some columns
    --audio=egemaps+wav2vec:rate=50                one stream, audio, of two tables side by side

`,` separates streams, `+` tables that are joined to one stream, `:` a table's options, and `|` patterns of columns.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from media.errors import UserError, unknown

MODALITIES = ("audio", "visual", "text", "physio")
ALIGN = ("interpolate", "mean", "nearest")
# Fields of a record that are no stream; a stream's name with `_mask` behind it is a field, too.
RESERVED = frozenset(
    ("recording", "subject", "group", "fps", "time", "targets", "target_mask", "raters", "rater_mask", "label", "mask")
)


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One kind of table, in a file or a folder, and how it is read.

    Attributes:
      path: file, folder, or a path with `{name}` in the place of the recordings' names; in labels also `{dimension}`.
      cols: patterns of the columns that are features; one that begins with `!` leaves columns out. () = all numbers.
      rate: rows per second, for tables without times; 0 = unknown.
      offset: seconds that are added to the times.
      time, key: names, or numbers from 1, of the columns of times and of the recordings' names. "" = by their names.
      unit: of the times, s, ms or min; "" = as the header says, else seconds.
      align: how rows are brought to the labels' times, a name in `ALIGN`; "" = as for the data set.
      window: seconds of the window of `align=mean`; 0 = the labels' step.
      max_gap: seconds between two rows that may be interpolated, or from a row to a label for `align=nearest`; 0 = one
        and a half steps of the table, and three quarters of a step for `nearest`.
      min_confidence: rows with a lower confidence are masked.
      header: whether the first line names the columns; "" = decided by the line.
      sort: whether rows are sorted by time.
      zeros: whether a row of nothing but zeros says that there was no face or sound, and is masked.
      missing: number that stands for a missing value; NaN = none does.
      valence, arousal: of labels, what takes the place of `{dimension}`, or the names of the columns.
    """

    path: str
    cols: tuple[str, ...] = ()
    rate: float = 0.0
    offset: float = 0.0
    time: str = ""
    key: str = ""
    unit: str = ""
    align: str = ""
    window: float = 0.0
    max_gap: float = 0.0
    min_confidence: float = 0.5
    header: str = ""
    sort: str = ""
    zeros: str = ""
    missing: float = float("nan")
    valence: str = "valence"
    arousal: str = "arousal"


@dataclasses.dataclass(frozen=True)
class StreamSpec:
    """A named stream of a modality, of one table or several side by side."""

    name: str
    modality: str
    tables: tuple[TableSpec, ...]

    @property
    def source(self) -> str:
        """The tables' paths, as the card names them."""
        return "+".join(table.path for table in self.tables)


def table(text: str, flag: str) -> tuple[TableSpec, str]:
    """Reads `PATH:option=value:…`; returns the table and the value of `name`, or "".

    Raises:
      UserError: an option is unknown or its value cannot be used.
    """
    path, *words = text.split(":")
    values: dict[str, Any] = {}
    name = ""
    known = {field.name: field for field in dataclasses.fields(TableSpec) if field.name != "path"}
    for word in words:
        option, given, value = word.partition("=")
        if not given:
            raise UserError(f"--{flag}={text}: {word!r} is not an option; write option=value after the path.")
        if option == "name":
            name = value
            continue
        if option not in known:
            raise unknown(f"option of a table in --{flag}", option, [*known, "name"])
        values[option] = _value(option, value, type(known[option].default), f"--{flag}={text}")
    if not path:
        raise UserError(f"--{flag}={text}: the path of a table is missing.")
    return TableSpec(path=path, **values), name


def _value(option: str, value: str, kind: type, where: str) -> Any:
    if kind is tuple:
        return tuple(part for part in value.split("|") if part)
    if kind is float:
        try:
            return float(value)
        except ValueError as error:
            raise UserError(f"{where}: {option}={value} is not a number.") from error
    yes = dict.fromkeys(("header", "sort", "zeros"), ("yes", "no"))
    choices = {"align": ALIGN, "unit": ("s", "ms", "min"), **yes}.get(option)
    if choices and value not in choices:
        raise unknown(f"value of {option} in {where}", value, choices)
    return value


def streams(given: Mapping[str, str]) -> list[StreamSpec]:
    """Reads the streams of each modality, in the order of `MODALITIES`.

    A modality's only stream has the modality's name; others are named after their last folder or file, without what
    all names begin with.

    Raises:
      UserError: two have one name, or a specification cannot be read.
    """
    found: list[tuple[str, str, tuple[TableSpec, ...]]] = []
    for modality in MODALITIES:
        parts = [part for part in given.get(modality, "").split(",") if part]
        for part in parts:
            read = [table(text, modality) for text in part.split("+")]
            named = next((name for _, name in read if name), modality if len(parts) == 1 else "")
            found.append((named, modality, tuple(spec for spec, _ in read)))
    unnamed = [last_name(tables[0].path) for name, _, tables in found if not name]
    shared = _shared_beginning(unnamed)
    out = []
    for name, modality, tables in found:
        chosen = name or field_name(last_name(tables[0].path)[shared:])
        if not name and (not chosen or chosen[0].isdigit() or chosen in RESERVED):
            chosen = f"{modality}_{chosen}".strip("_")
        if not re.fullmatch("[a-z][a-z0-9_]*", chosen) or chosen in RESERVED or chosen.endswith("_mask"):
            raise UserError(f"a stream cannot be called {chosen!r}: add name=WORD, of letters, digits and _.")
        out.append(StreamSpec(chosen, modality, tables))
    twice = [name for name, count in collections.Counter(stream.name for stream in out).items() if count > 1]
    if twice:
        raise UserError(f"two streams are called {twice[0]!r}: tell them apart by name=, as in DIR:name=WORD.")
    return out


def last_name(path: str) -> str:
    """The last part of a path that names something: no placeholder, no suffix of a file."""
    parts = [part for part in pathlib.PurePath(path).parts if "{" not in part]
    return pathlib.PurePath(parts[-1]).stem if parts else ""


def field_name(text: str) -> str:
    """A name as a field of a record: lower case, digits and `_`."""
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")


def _shared_beginning(names: Sequence[str]) -> int:
    """How many characters all of several names share at their beginning, up to the last separator."""
    shared = 0
    for place, characters in enumerate(zip(*names, strict=False)) if len(names) > 1 else ():
        if len(set(characters)) > 1:
            break
        if characters[0] in "-_ .":
            shared = place + 1
    return shared
