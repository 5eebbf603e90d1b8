"""The encoders that made a fusion run's features, and how faces were cut out, recorded in the run folder.

A fusion run is trained on cached features. To see a new video it needs the encoders that made them. `record` writes
`encoders.json` into the run folder after training; `resolve` reads it, or else the features themselves.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo.data import shards
from avemo.data.features import OUTPUTS
from avemo.runs import archive, installed, paths, shipped
from media.errors import UserError
from media.faces import FaceOptions
from media.files import read_json

MODALITIES = ("visual", "audio")
DEFAULT_FPS = 25.0
_FACE_OPTIONS = tuple(field.name for field in dataclasses.fields(FaceOptions))
_CLIP_OPTIONS = ("fps", "max_frames")  # options of the preparation of clips that `FaceOptions` does not have


@dataclasses.dataclass(frozen=True)
class RecordedEncoders:
    """The encoders of a fusion run and the preparation of their inputs.

    Attributes:
      visual, audio: run folders; None if the features do not have the modality.
      fingerprints: fingerprints of the weights, by modality.
      outputs: name of the output that is the feature, by modality.
      faces: how faces were found and cut out of the training videos.
      fps: frames per second of the training features.
    """

    visual: str | None
    audio: str | None
    fingerprints: Mapping[str, str]
    outputs: Mapping[str, str]
    faces: FaceOptions
    fps: float


def describe(features: str | epath.Path) -> dict[str, Any]:
    """Gathers the contents of `encoders.json` from a features data set and the clips that it was made from.

    Args:
      features: the folder that `launch.py extract` wrote.

    Returns:
      `visual` and `audio` (`workdir`, `fingerprint`, `output`), `faces` (the options of the prepared clips), `fps`.

    Raises:
      UserError: the folder holds no features.
    """
    folder = shards.find_dataset(features)
    path = folder / "extract.json"
    if not path.exists():
        if (folder / "card.json").exists():
            raise UserError(
                f"{folder} was made from tables by `data_prep features`, so no encoder is known that makes such "
                "features of a video: train on features of `launch.py extract`."
            )
        raise UserError(f"{folder} has no extract.json: it was not made by `launch.py extract`; extract it again.")
    card = read_json(path, "extract the features again")
    out: dict[str, Any] = {m: card[m] for m in MODALITIES if card.get(m)}
    clips = paths.find(card.get("clips") or "", folder)
    if clips and epath.Path(clips).exists():
        made = shards.find_dataset(clips) / "card.json"
        arguments = read_json(made).get("arguments", {}) if made.exists() else {}
        out["faces"] = {k: v for k, v in arguments.items() if k in (*_FACE_OPTIONS, *_CLIP_OPTIONS)}
    first = shards.splits(folder)[0]
    out["fps"] = float(shards.Shards(folder, first).fields(0, ("fps",))[0])
    return out


def record(workdir: str | epath.Path, features: str | epath.Path) -> None:
    """Writes `encoders.json` into a fusion run's folder."""
    card, folder = describe(features), shards.find_dataset(features)
    (epath.Path(workdir) / archive.ENCODERS).write_text(json.dumps(card, indent=2) + "\n")
    named = [card[m]["workdir"] for m in MODALITIES if m in card]
    named.append((card.get("faces") or {}).get("detector_model") or "")
    paths.record(workdir, {path: paths.find(path, folder) for path in named})


def resolve(
    workdir: str | epath.Path, config: ConfigDict, visual: str | None = None, audio: str | None = None
) -> RecordedEncoders:
    """Finds the encoders of a fusion run, also after they have moved together with it.

    Args:
      workdir: the fusion run.
      config: its config.
      visual, audio: run folders that replace the recorded ones.

    Raises:
      UserError: the run does not record what made its features, or an encoder is missing.
    """
    workdir = epath.Path(workdir)
    card = _card(workdir, config, required=not (visual or audio))
    try:
        return _resolve(workdir, card, {"visual": visual, "audio": audio})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{workdir / archive.ENCODERS} cannot be read ({type(error).__name__}: {error}): "
            "pass --visual=RUN --audio=RUN."
        ) from error


def _resolve(workdir: epath.Path, card: Mapping[str, Any], given: Mapping[str, str | None]) -> RecordedEncoders:
    found: dict[str, str | None] = {}
    for modality in MODALITIES:
        recorded, chosen = card.get(modality), given[modality]
        if chosen:
            found[modality] = installed.find(chosen)
        else:
            found[modality] = located(workdir, modality, recorded["workdir"]) if recorded else None
    return RecordedEncoders(
        **found,
        fingerprints={m: card[m]["fingerprint"] for m in MODALITIES if card.get(m) and not given[m]},
        # An encoder that replaces the recorded one has to give the same output.
        outputs={m: (card.get(m) or {}).get("output", OUTPUTS[m]) for m in MODALITIES},
        faces=_faces(workdir, card),
        fps=float(card.get("fps") or DEFAULT_FPS),
    )


def _card(workdir: epath.Path, config: ConfigDict, required: bool) -> dict[str, Any]:
    path = workdir / archive.ENCODERS
    if path.exists():
        return read_json(path, "pass --visual=RUN --audio=RUN")
    features = paths.find(config.data.get("features") or "", workdir)
    if features and epath.Path(features).exists():
        return describe(features)
    if required:
        raise UserError(
            f"{workdir} has no {archive.ENCODERS} and its features ({features or 'not named'}) are gone: "
            "name the encoders that made them with --visual=RUN --audio=RUN."
        )
    return {}


def _faces(workdir: epath.Path, card: Mapping[str, Any]) -> FaceOptions:
    """The face options in `encoders.json`; unknown keys of another version are left out."""
    faces = FaceOptions.from_mapping(card.get("faces") or {})
    own = workdir / faces.detector_model  # a released run brings its detector
    detector = str(own) if faces.detector_model and own.exists() else paths.find(faces.detector_model, workdir)
    return dataclasses.replace(faces, detector_model=detector)


def located(workdir: epath.Path, modality: str, recorded: str) -> str:
    """The run folder of an encoder that is recorded as `recorded`.

    Raises:
      UserError: it is not there.
    """
    candidates = (
        epath.Path(paths.find(recorded, workdir)),
        workdir / "encoders" / modality,
        workdir.parent / epath.Path(recorded).name,
    )
    # A released run names its neighbours. A folder of that name in the current folder would be another run.
    for candidate in reversed(candidates) if "/" not in recorded else candidates:
        if (candidate / "config.json").exists():
            return str(candidate)
    if recorded in shipped.RUNS:
        return installed.find(recorded)
    raise UserError(
        f"the {modality} encoder of {workdir} is no longer at {recorded}: name its run folder with --{modality}=RUN."
    )
