"""What a run learned from: its data sets with their licences, its initial weights, the runs that taught it."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo.data import mixture, shards
from avemo.runs import paths, recorded_encoders, run_folder
from media.errors import UserError
from media.files import read_json
from media.records import SYNTHETIC_MANIFEST

# Words that rule out commercial use in the licences of `data_prep.corpora` and `avemo.models.pretrained`.
_RESTRICTED = re.compile(r"research|non-?commercial|\bNC\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, or published weights.

    Attributes:
      via: the run that learned from it, as a path of roles from the released run: "" for itself, "teacher", …
      role: what it was used for: "faces", "clips", …, or "initial weights".
      title, licence, citation: from the data set's card or the weights' provenance.
      fingerprint: fingerprint of the prepared data, or of the published file.
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
        """Whether its licence mentions research or non-commercial use."""
        return bool(_RESTRICTED.search(self.licence))


def of_run(workdir: str, config: ConfigDict, result: Mapping[str, Any], via: str = "") -> Iterator[Source]:
    """Lists everything that a run learned from, including its teacher's sources.

    A fusion run's encoders are released as runs of their own, so their sources are not in its list.

    Args:
      workdir: the run's folder.
      config, result: its config (with paths as they are now) and the contents of `result.json`.
      via: see `Source.via`.

    Raises:
      UserError: data, a teacher or weights are gone or have changed, so that their licence is unknown.
    """
    batch = config.data.get("batch") or {}
    for role in paths.DATA_FIELDS:
        if config.data.get(role) and batch.get(role, 1):
            recorded = (result.get("data") or {}).get(role)
            yield from _data_sets(workdir, role, config.data[role], recorded, via)
    start = config.model.get("init_from")
    if start and (epath.Path(start) / "config.json").exists():
        yield from _other_run(workdir, start, _join(via, "initial run"))
    elif start:
        yield _weights(workdir, start, via)
    if config.get("task") == "student":
        yield from _other_run(workdir, config.teacher, _join(via, "teacher"))


def of_subrun(whole: str, subrun: str) -> Iterator[Source]:
    """Lists everything that one network of an end-to-end run learned from, including the run that it started as."""
    config = run_folder.config_of(whole)
    yield from of_run(whole, config, read_json(epath.Path(whole) / "result.json"))
    start = config.fusion
    if subrun != "fusion" and (epath.Path(start) / "config.json").exists():
        start = getattr(recorded_encoders.resolve(start, run_folder.config_of(start)), subrun)
    yield from _other_run(whole, start, "initial run")


def _join(via: str, role: str) -> str:
    return f"{via}, {role}" if via else role


def _other_run(workdir: str, other: str, via: str) -> Iterator[Source]:
    if not other or not (epath.Path(other) / "result.json").exists():
        raise _gone(workdir, via, other)
    yield from of_run(other, run_folder.config_of(other), read_json(epath.Path(other) / "result.json"), via)


def _weights(workdir: str, folder: str, via: str) -> Source:
    path = epath.Path(folder) / "provenance.json"
    if not path.exists():
        raise _gone(workdir, "initial weights", folder)
    card = read_json(path)
    return Source(
        via=via,
        role="initial weights",
        title=f"{card['network']} ({card['source_file']})",
        licence=card["licence"],
        citation="",
        fingerprint=card["sha256"][:16],
        size="",
    )


def _data_sets(workdir: str, role: str, text: str, recorded: str | None, via: str) -> Iterator[Source]:
    try:
        fingerprint = mixture.fingerprint(text)
        folders = [shards.find_dataset(member.folder) for member in mixture.parse(text)]
    except UserError as error:
        raise _gone(workdir, role, text) from error
    if recorded and recorded != fingerprint:
        raise UserError(f"the {role} of {workdir} ({text}) are not those it was trained on: put the old ones back.")
    for folder in folders:
        if role == "features":
            path = folder / "extract.json"
            card = read_json(path) if path.exists() else {}
            if not card.get("clips"):
                raise _gone(workdir, "clips of the features", text)
            yield from _data_sets(workdir, "clips", paths.find_data(card["clips"], folder), card.get("data"), via)
        else:
            yield _data_set(workdir, role, folder, via)


def _data_set(workdir: str, role: str, folder: epath.Path, via: str) -> Source:
    path = folder / "card.json"
    if not path.exists():
        raise _gone(workdir, f"card.json of the {role}", str(folder))
    card = read_json(path)
    title, licence, citation = card["title"], card["licence"], card.get("citation", "")
    if _synthetic(card):
        title, licence, citation = f"synthetic, in the layout of {card['corpus']}", "made by this project", ""
    return Source(via, role, title, licence, citation, shards.fingerprint(folder), _size(card))


def _synthetic(card: Mapping[str, Any]) -> bool:
    """Whether `data_prep.synthetic` wrote the corpus, which carries the name of the corpus that it imitates."""
    source = (card.get("arguments") or {}).get("source")
    manifest = epath.Path(source).parent / SYNTHETIC_MANIFEST if source else None
    return manifest is not None and manifest.exists() and "participants" in read_json(manifest)


def _size(card: Mapping[str, Any]) -> str:
    sizes = []
    for name, split in sorted(card["splits"].items(), key=lambda item: (item[0] != "train", item[0])):
        counts = split["counts"]
        unit = "recordings" if counts.get("recordings") else "records"
        subjects = f" of {split['subjects']} subjects" if split.get("subjects") else ""
        sizes.append(f"{name} {counts[unit]} {unit}{subjects}")
    return "; ".join(sizes)


def _gone(workdir: str, what: str, where: str) -> UserError:
    return UserError(
        f"the {what} of {workdir} ({where or 'not named'}) cannot be found: a release states the licences of all that "
        "its weights were learned from; put it back where the run was trained."
    )
