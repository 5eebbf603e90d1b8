"""What a run learnt from: its data sets with their licences, the weights it began with, the runs that taught it."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.data import mixture, shards
from avemo.runs import recorded_encoders
from media.errors import UserError
from media.records import SYNTHETIC_MANIFEST

ROLES = ("faces", "triplets", "unlabelled", "clips", "features")
# Words of the licences in `data_prep.corpora` and `avemo.models.pretrained` that rule out commercial use.
_RESTRICTED = re.compile(r"research|non-?commercial|\bNC\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, or published weights.

    Attributes:
      via: the run that learnt from it, as a path of roles from the released run: "" for itself, "teacher", …
      role: what it was used for: "faces", "clips", …, or "initial weights".
      title, licence, citation: as the data set's card or the weights' provenance says.
      fingerprint: of the prepared data, or of the published file.
      size: records and subjects by split, in words.
    """

    via: str
    role: str
    title: str
    licence: str
    citation: str
    fingerprint: str
    size: str

    @property
    def restricted(self) -> bool:
        """Whether its licence speaks of research or non-commercial use."""
        return bool(_RESTRICTED.search(self.licence))


def trace(workdir: str, config: ConfigDict, result: Mapping[str, Any], via: str = "") -> Iterator[Source]:
    """Everything that a run learnt from, its teacher's included; not what its encoders did, which are runs themselves.

    Args:
      workdir: the run's folder; config, result: its `config.json` and `result.json`.
      via: see `Source.via`.

    Raises:
      UserError: data, a teacher or weights are gone or have changed, so that nobody can say what their licence is.
    """
    batch = config.data.get("batch") or {}
    for role in ROLES:
        if config.data.get(role) and batch.get(role, 1):
            recorded = (result.get("data") or {}).get(role)
            yield from _data(workdir, role, config.data[role], recorded, via)
    start = config.model.get("init_from")
    if start and (epath.Path(start) / "config.json").exists():
        yield from _run(workdir, start, _join(via, "initial run"))
    elif start:
        yield _weights(workdir, start, via)
    if config.get("task") == "student":
        yield from _run(workdir, config.teacher, _join(via, "teacher"))


def trace_part(whole: str, part: str) -> Iterator[Source]:
    """Everything that one network of a run end to end learnt from: there, and in the run that it began as."""
    config = configuration.from_json(epath.Path(whole) / "config.json")
    yield from trace(whole, config, json.loads((epath.Path(whole) / "result.json").read_text()))
    began = config.fusion
    if part != "fusion" and (epath.Path(began) / "config.json").exists():
        fusion = configuration.from_json(epath.Path(began) / "config.json")
        began = getattr(recorded_encoders.resolve(began, fusion), part)
    yield from _run(whole, began, "initial run")


def _join(via: str, role: str) -> str:
    return f"{via}, {role}" if via else role


def _run(workdir: str, other: str, via: str) -> Iterator[Source]:
    if not other or not (epath.Path(other) / "result.json").exists():
        raise _gone(workdir, via, other)
    config = configuration.from_json(epath.Path(other) / "config.json")
    yield from trace(other, config, json.loads((epath.Path(other) / "result.json").read_text()), via)


def _weights(workdir: str, folder: str, via: str) -> Source:
    path = epath.Path(folder) / "provenance.json"
    if not path.exists():
        raise _gone(workdir, "initial weights", folder)
    card = json.loads(path.read_text())
    title = f"{card['network']} ({card['source_file']})"
    return Source(via, "initial weights", title, card["licence"], "", card["sha256"][:16], "")


def _data(workdir: str, role: str, text: str, recorded: str | None, via: str) -> Iterator[Source]:
    try:
        print_ = mixture.fingerprint(text)
        folders = [shards.find_dataset(member.folder) for member in mixture.parse(text)]
    except UserError as error:
        raise _gone(workdir, role, text) from error
    if recorded and recorded != print_:
        raise UserError(f"the {role} of {workdir} ({text}) are not those it was trained on: put the old ones back.")
    for folder in folders:
        if role == "features":
            path = folder / "extract.json"
            card = json.loads(path.read_text()) if path.exists() else {}
            if not card.get("clips"):
                raise _gone(workdir, "clips of the features", text)
            yield from _data(workdir, "clips", card["clips"], card.get("data"), via)
            continue
        path = folder / "card.json"
        if not path.exists():
            raise _gone(workdir, f"card.json of the {role}", str(folder))
        card = json.loads(path.read_text())
        title, licence, citation = card["title"], card["licence"], card.get("citation", "")
        if _synthetic(card):
            title, licence, citation = f"synthetic, in the layout of {card['corpus']}", "made by this project", ""
        yield Source(via, role, title, licence, citation, shards.fingerprint(folder), _size(card))


def _synthetic(card: Mapping[str, Any]) -> bool:
    """Whether `data_prep.synthetic` wrote the corpus, in the name of the one that it imitates."""
    source = (card.get("arguments") or {}).get("source")
    manifest = epath.Path(source).parent / SYNTHETIC_MANIFEST if source else None
    return manifest is not None and manifest.exists() and "participants" in json.loads(manifest.read_text())


def _size(card: Mapping[str, Any]) -> str:
    parts = []
    for name, split in sorted(card["splits"].items(), key=lambda item: (item[0] != "train", item[0])):
        counts = split["counts"]
        unit = "recordings" if counts.get("recordings") else "records"
        subjects = f" of {split['subjects']} subjects" if split.get("subjects") else ""
        parts.append(f"{name} {counts[unit]} {unit}{subjects}")
    return "; ".join(parts)


def _gone(workdir: str, what: str, where: str) -> UserError:
    return UserError(
        f"the {what} of {workdir} ({where or 'not named'}) cannot be found: a release states under which licences its "
        "weights were learnt; put it back where the run was trained."
    )
