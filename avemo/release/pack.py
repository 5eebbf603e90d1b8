"""Packs runs into an archive: of each its config, the weights that evaluation uses, and its result; no data.

Nothing of the training goes with it (optimizer, history, predictions), and no path of the machine.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from avemo.release import archive, card, sources
from avemo.runs import checkpoints, installed, recorded_encoders, subruns, weights
from avemo.version import __version__
from media.errors import UserError

TASKS = ("teacher", "student", "audio", "audiovisual")
_RUNS = ("teacher", "fusion", "visual", "audio")  # config fields that name run folders


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a release.

    Attributes:
      name: its folder's name in the archive; workdir: its folder here.
      config, result: what it was trained by, and what came of it.
      fingerprint: of its weights.
      weights: bytes of `weights.npz`.
      encoders: names of the encoders of a fusion run by modality; card: its `encoders.json` for the archive.
      detector: the file of the face detector's weights, where the run names one.
      sources: what it learnt from.
    """

    name: str
    workdir: str
    config: ConfigDict
    result: dict[str, Any]
    fingerprint: str
    weights: bytes
    encoders: dict[str, str]
    card: dict[str, Any]
    detector: pathlib.Path | None
    sources: tuple[sources.Source, ...]


def pack(workdir: str, output: str) -> dict[str, Any]:
    """Writes a release.

    Args:
      workdir: finished run folders separated by commas; the encoders of a fusion run come with it. Of a run end to
        end its fusion has the run's name, its encoders the same with `_visual` and `_audio`.
      output: the archive, FILE.zip.

    Returns:
      `output`, `bytes`, and `runs`: weights' fingerprints by name.

    Raises:
      UserError: no finished run, data whose licence cannot be told, two runs of one name, an archive above the limit.
    """
    if not installed.NAME.fullmatch(pathlib.Path(output).name) or not output.endswith(archive.SUFFIX):
        raise UserError(f"--output={output}: a release is a file NAME{archive.SUFFIX} (letters, digits, - and _).")
    members: dict[str, Member] = {}
    for folder in workdir.split(","):
        if folder:
            _add(members, folder)
    members = dict(sorted(members.items()))
    files: dict[str, bytes] = {}
    for name, member in members.items():
        files |= {f"{name}/{file}": data for file, data in _files(member).items()}
    files["MODEL_CARD.md"] = card.write(list(members.values()), pathlib.Path(output).name).encode()
    runs = {name: {"task": m.config.task, "fingerprint": m.fingerprint} for name, m in members.items()}
    size = archive.write(output, files, {"avemo": __version__, "runs": runs})
    return {"output": str(output), "bytes": size, "runs": {name: m.fingerprint for name, m in members.items()}}


def _add(members: dict[str, Member], folder: str) -> str:
    """Adds a run, and what it needs, to `members`; returns its name there."""
    path = subruns.fusion_of(os.path.abspath(folder) if "://" not in folder else folder.rstrip("/"))
    whole, part = subruns.whole_of(path)
    name = whole.rpartition("/")[2] + (f"_{part}" if part not in ("", "fusion") else "")
    if name in members:
        if members[name].workdir != path:
            raise UserError(f"{path} and {members[name].workdir} have one name: rename one of the folders.")
        return name
    if not installed.NAME.fullmatch(name):
        raise UserError(f"{folder} cannot be released under the name {name!r}: use letters, digits, - and _.")
    config, step, variables = checkpoints.load(path)
    if config.get("task") not in TASKS:
        raise UserError(f"{folder} is a run of task {config.get('task')!r}: a release holds {', '.join(TASKS)} runs.")
    result = _result(whole, step)
    if part:
        result |= json.loads((epath.Path(path) / "result.json").read_text())
    learnt = sources.trace_part(whole, part) if part else sources.trace(path, config, result)
    needed, described, detector = _encoders(members, path, config) if config.task == "audiovisual" else ({}, {}, None)
    members[name] = Member(
        name, path, config, result, weights.fingerprint(variables), weights.pack(step, variables),
        needed, described, detector, tuple(learnt),
    )  # fmt: skip
    return name


def _result(path: str, step: int) -> dict[str, Any]:
    file = epath.Path(path) / "result.json"
    if checkpoints.released(path):
        raise UserError(f"{path} is a released run already: hand on its archive.")
    result = json.loads(file.read_text()) if file.exists() else {}
    if not result.get("metrics"):
        raise UserError(f"{file} has no metrics: let `launch.py train` finish the run before it is released.")
    if result.get("evaluated_step") != step:
        raise UserError(
            f"{file} scores step {result.get('evaluated_step')}, the best checkpoint there is of step {step}: run "
            "`launch.py train` to its end again."
        )
    return result


def _encoders(
    members: dict[str, Member], path: str, config: ConfigDict
) -> tuple[dict[str, str], dict[str, Any], pathlib.Path | None]:
    """Adds the encoders that a fusion run reads; returns their names, its `encoders.json`, and its detector's file."""
    found = recorded_encoders.resolve(path, config)
    names: dict[str, str] = {}
    for modality in recorded_encoders.MODALITIES:
        other = "audio" if modality == "visual" else "visual"
        workdir = getattr(found, modality)
        if workdir is None or config.model.fusion == other:
            continue
        names[modality] = _add(members, workdir)
        if members[names[modality]].fingerprint != found.fingerprints[modality]:
            raise UserError(
                f"the {modality} encoder {workdir} has other weights than the one that made the features of {path}: "
                "extract and train again."
            )
    described: dict[str, Any] = {
        m: {"workdir": name, "fingerprint": found.fingerprints[m], "output": found.outputs[m]}
        for m, name in names.items()
    }
    faces, detector = dataclasses.asdict(found.faces), None
    if faces["detector_model"]:
        detector = pathlib.Path(faces["detector_model"])
        if not detector.is_file():
            raise UserError(f"the face detector of {path}, {detector}, is gone: put the file back.")
        faces["detector_model"] = detector.name
    return names, {**described, "faces": faces, "fps": found.fps}, detector


def _files(member: Member) -> dict[str, bytes]:
    dump = lambda value: (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()  # noqa: E731
    files = {
        "config.json": dump(_without_paths(member.config)),
        "result.json": dump(member.result),
        weights.FILENAME: member.weights,
    }
    if member.card:
        files[recorded_encoders.FILENAME] = dump(member.card)
    if member.detector:
        files[member.detector.name] = member.detector.read_bytes()
    return files


def _without_paths(config: ConfigDict) -> dict[str, Any]:
    """The config without the folders of this machine, none of which a released run has."""
    plain = configuration.to_dict(config)
    for field in _RUNS:
        if field in plain:
            plain[field] = ""
    if plain["model"].get("init_from"):
        plain["model"]["init_from"] = ""
    plain["data"] |= {role: "" for role in sources.ROLES if role in plain["data"]}
    return plain
