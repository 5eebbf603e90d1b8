"""Packs runs into an archive: each run's config, the weights that evaluation uses, and its result.

Data, optimizer state, history, predictions and paths of this machine stay out.
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
from avemo.release.member import Member
from avemo.runs import checkpoints, installed, paths, recorded_encoders, subruns, weights
from avemo.version import __version__
from media.errors import UserError
from media.files import read_json

TASKS = ("teacher", "student", "audio", "audiovisual")


def pack(workdir: str, output: str) -> dict[str, Any]:
    """Writes a release.

    Args:
      workdir: finished run folders, separated by commas. A fusion run brings its encoders. An end-to-end run becomes
        its fusion under the run's name, and its encoders under that name with `_visual` and `_audio`.
      output: the archive, FILE.zip.

    Returns:
      `output`, `bytes`, and `runs`: the fingerprints of the weights by name.

    Raises:
      UserError: a run is not finished, its data have no known licence, two runs have the same name, or the archive is
        too large.
    """
    if not installed.NAME.fullmatch(pathlib.Path(output).name) or not output.endswith(archive.SUFFIX):
        raise UserError(f"--output={output}: a release is a file NAME{archive.SUFFIX} (letters, digits, - and _).")
    members: dict[str, Member] = {}
    for folder in installed.separate(workdir):
        _add(members, folder)
    members = dict(sorted(members.items()))
    files: dict[str, bytes] = {}
    for name, member in members.items():
        files |= {f"{name}/{file}": data for file, data in _files(member).items()}
    files[archive.CARD] = card.write(list(members.values()), pathlib.Path(output).name).encode()
    runs = {name: {"task": m.config.task, "fingerprint": m.fingerprint} for name, m in members.items()}
    size = archive.write(output, files, {"avemo": __version__, "runs": runs})
    return {"output": str(output), "bytes": size, "runs": {name: m.fingerprint for name, m in members.items()}}


def _add(members: dict[str, Member], folder: str) -> str:
    """Adds a run and the runs it needs to `members`; returns its name there."""
    path = subruns.fusion_of(os.path.abspath(folder) if "://" not in folder else folder.rstrip("/"))
    whole, subrun = subruns.whole_of(path)
    name = whole.rpartition("/")[2] + (f"_{subrun}" if subrun not in ("", "fusion") else "")
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
    if subrun:
        result |= read_json(epath.Path(path) / "result.json")
    learnt = sources.of_subrun(whole, subrun) if subrun else sources.of_run(path, config, result)
    needed, recorded, detector = _encoders(members, path, config) if config.task == "audiovisual" else ({}, {}, None)
    members[name] = Member(
        name=name,
        workdir=path,
        config=config,
        result=result,
        fingerprint=weights.fingerprint(variables),
        weights=weights.pack(step, variables),
        encoders=needed,
        recorded_encoders=recorded,
        detector=detector,
        sources=tuple(learnt),
    )
    return name


def _result(path: str, step: int) -> dict[str, Any]:
    file = epath.Path(path) / "result.json"
    if checkpoints.released(path):
        raise UserError(f"{path} is already a released run: pass on its archive.")
    result = read_json(file) if file.exists() else {}
    if not result.get("metrics"):
        raise UserError(f"{file} has no metrics: let `launch.py train` finish the run before you release it.")
    if result.get("evaluated_step") != step:
        raise UserError(
            f"{file} scores step {result.get('evaluated_step')}, but the best checkpoint is of step {step}: run "
            "`launch.py train` to its end again."
        )
    return result


def _encoders(
    members: dict[str, Member], path: str, config: ConfigDict
) -> tuple[dict[str, str], dict[str, Any], pathlib.Path | None]:
    """Adds the encoders that a fusion run reads; returns their names, its `encoders.json` and its detector's file."""
    found = recorded_encoders.resolve(path, config)
    names: dict[str, str] = {}
    for modality, workdir, other in (("visual", found.visual, "audio"), ("audio", found.audio, "visual")):
        if workdir is None or config.model.fusion == other:
            continue
        names[modality] = _add(members, workdir)
        if members[names[modality]].fingerprint != found.fingerprints[modality]:
            raise UserError(
                f"the {modality} encoder {workdir} has other weights than the one that made the features of {path}: "
                "extract and train again."
            )
    recorded: dict[str, Any] = {
        m: {"workdir": name, "fingerprint": found.fingerprints[m], "output": found.outputs[m]}
        for m, name in names.items()
    }
    faces, detector = dataclasses.asdict(found.faces), None
    if faces["detector_model"]:
        detector = pathlib.Path(faces["detector_model"])
        if not detector.is_file():
            raise UserError(f"the face detector of {path}, {detector}, is gone: put the file back.")
        faces["detector_model"] = _detector_name(detector)
    return names, {**recorded, "faces": faces, "fps": found.fps}, detector


def _files(member: Member) -> dict[str, bytes]:
    def dump(value: Any) -> bytes:
        return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()

    files = {
        "config.json": dump(_without_paths(member.config)),
        "result.json": dump(member.result),
        weights.FILENAME: member.weights,
    }
    if member.recorded_encoders:
        files[recorded_encoders.FILENAME] = dump(member.recorded_encoders)
    if member.detector:
        files[_detector_name(member.detector)] = member.detector.read_bytes()
    return files


def _detector_name(file: pathlib.Path) -> str:
    return file.name if archive.DETECTOR.fullmatch(file.name) else "detector.onnx"


def _without_paths(config: ConfigDict) -> dict[str, Any]:
    """The config without the folders of this machine."""
    plain = configuration.to_dict(config)
    for field in paths.RUN_FIELDS:
        if field in plain:
            plain[field] = ""
    if plain["model"].get("init_from"):
        plain["model"]["init_from"] = ""
    plain["data"] |= {role: "" for role in paths.DATA_FIELDS if role in plain["data"]}
    return plain
