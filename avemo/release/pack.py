"""Packs runs into an archive: each run's config, the weights that evaluation uses, and its result.

Data, optimizer state, history, predictions and paths of this machine stay out.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration, metrics
from avemo.release import calibration, card, sources
from avemo.release.member import Member
from avemo.runs import archive, checkpoints, installed, paths, recorded_encoders, run_folder, subruns, weights
from avemo.version import __version__
from media.errors import UserError
from media.files import read_json

TASKS = ("teacher", "student", "audio", "audiovisual")


@dataclasses.dataclass(frozen=True)
class Options:
    """How the weights are changed on their way into the archive.

    half: store parameters as float16. calibrate: fold temperature and prior, fitted on dev, into each encoder's head.
    """

    half: bool = False
    calibrate: bool = False


def pack(workdir: str, output: str, options: Options = Options()) -> dict[str, Any]:
    """Writes a release.

    Args:
      workdir: finished run folders, separated by commas. A fusion run brings its encoders. An end-to-end run becomes
        its fusion under the run's name, and its encoders under that name with `_visual` and `_audio`.
      output: the archive, FILE.zip.
      options: how the weights are changed.

    Returns:
      `output`, `bytes`, and `runs`: the fingerprints of the weights by name.

    Raises:
      UserError: a run is not finished, its data have no known licence, two runs have the same name, or the archive is
        too large.
    """
    if not archive.NAME.fullmatch(pathlib.Path(output).name) or not output.endswith(archive.SUFFIX):
        raise UserError(f"--output={output}: a release is a file NAME{archive.SUFFIX} (letters, digits, - and _).")
    members: dict[str, Member] = {}
    for folder in installed.separate(workdir):
        _add(members, folder, options)
    members = dict(sorted(members.items()))
    files: dict[str, bytes] = {}
    for name, member in members.items():
        files |= {f"{name}/{file}": data for file, data in _files(member).items()}
    files[archive.CARD] = card.write(list(members.values()), pathlib.Path(output).name).encode()
    runs = {name: {"task": m.config.task, "fingerprint": m.fingerprint} for name, m in members.items()}
    size = archive.write(output, files, {"avemo": __version__, "runs": runs})
    return {"output": str(output), "bytes": size, "runs": {name: m.fingerprint for name, m in members.items()}}


def _add(members: dict[str, Member], folder: str, options: Options) -> str:
    """Adds a run and the runs it needs to `members`; returns its name there."""
    path = subruns.fusion_of(os.path.abspath(folder) if "://" not in folder else folder.rstrip("/"))
    whole, subrun = subruns.whole_of(path)
    name = whole.rpartition("/")[2] + (f"_{subrun}" if subrun not in ("", "fusion") else "")
    if name in members:
        if members[name].workdir != path:
            raise UserError(f"{path} and {members[name].workdir} have one name: rename one of the folders.")
        return name
    if not archive.NAME.fullmatch(name):
        raise UserError(f"{folder} cannot be released under the name {name!r}: use letters, digits, - and _.")
    config, step, variables = checkpoints.load(path)
    if config.get("task") not in TASKS:
        raise UserError(f"{folder} is a run of task {config.get('task')!r}: a release holds {', '.join(TASKS)} runs.")
    result = _result(whole, step)
    if subrun:
        result |= read_json(epath.Path(path) / "result.json")
    learnt = sources.of_subrun(whole, subrun) if subrun else sources.of_run(path, config, result)
    needed, recorded, detector = (
        _encoders(members, path, config, options) if config.task == "audiovisual" else ({}, {}, None)
    )
    trained = weights.fingerprint(variables)
    if options.calibrate:
        variables, result = _calibrated(path, config, variables, result, needed)
        config = with_priors(config, {m: members[encoder].result for m, encoder in needed.items()})
    variables = weights.halved(variables) if options.half else variables
    members[name] = Member(
        name=name,
        workdir=path,
        config=config,
        result=result,
        trained=trained,
        fingerprint=weights.fingerprint(variables),
        weights=weights.pack(step, variables, options.half),
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


def _calibrated(
    path: str, config: ConfigDict, variables: dict[str, Any], result: dict[str, Any], encoders: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An encoder with its calibration folded in, and its result with the scores that it then has.

    A fusion keeps its weights. Only `experts` may get other logits than those it was made with, because it learned
    nothing from them; its own scores were those of encoders that are not calibrated, and are left out.
    """
    if config.task == "audiovisual":
        if config.model.fusion != "experts":
            raise UserError(
                f"{path} learned from the answers of encoders that were not calibrated: leave out --calibrate, or "
                "release its encoders alone."
            )
        return variables, {**result, "metrics": {}, "calibrated_encoders": sorted(encoders.values())}
    file = epath.Path(path) / "predictions" / "dev.npz"
    if not file.exists():
        raise UserError(f"--calibrate needs {file}: run `launch.py evaluate --workdir={path} --split=dev` first.")
    dev = run_folder.read_predictions(file)
    if "probability" not in dev:
        raise UserError(f"{path} has no classes to calibrate: leave out --calibrate.")
    found = calibration.fit(dev["label"], dev["probability"])
    scores = {}
    for split, before in result["metrics"].items():
        if "ece" not in before:  # scored by triplets alone
            scores[split] = before
            continue
        said = run_folder.read_predictions(file.with_name(f"{split}.npz"))
        log = np.log(np.maximum(said["probability"].astype(np.float64), 1e-12))
        scores[split] = {**before, **metrics.class_scores(said["label"], found.apply(log))}
        scores[split]["ece_before_calibration"] = before["ece"]
    return calibration.fold(config.task, variables, found), {
        **result,
        "metrics": scores,
        "calibration": found.as_json(),
    }


def with_priors(config: ConfigDict, encoders: dict[str, dict[str, Any]]) -> ConfigDict:
    """The config of a fusion of experts that takes back what the calibration left of each expert's prior."""
    config = config.copy_and_resolve_references()
    for modality, result in encoders.items():
        left = result["calibration"]["left"]
        if any(left):
            config.model.fusion_args[f"{modality}_prior"] = tuple(left)
    return config


def _encoders(
    members: dict[str, Member], path: str, config: ConfigDict, options: Options
) -> tuple[dict[str, str], dict[str, Any], pathlib.Path | None]:
    """Adds the encoders that a fusion run reads; returns their names, its `encoders.json` and its detector's file."""
    found = recorded_encoders.resolve(path, config)
    names: dict[str, str] = {}
    for modality, workdir, other in (("visual", found.visual, "audio"), ("audio", found.audio, "visual")):
        if workdir is None or config.model.fusion == other:
            continue
        names[modality] = _add(members, workdir, options)
        if members[names[modality]].trained != found.fingerprints[modality]:
            raise UserError(
                f"the {modality} encoder {workdir} has other weights than the one that made the features of {path}: "
                "extract and train again."
            )
    recorded: dict[str, Any] = {
        m: {"workdir": name, "fingerprint": members[name].fingerprint, "output": found.outputs[m]}
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
        files[archive.ENCODERS] = dump(member.recorded_encoders)
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
