"""What a fusion run saw its features made by: both encoders and how faces were cut out, kept in its own folder.

A fusion run is trained on cached features; to see a new video it needs the encoders that made them. `record` writes
`encoders.json` into the run folder when it is trained; `resolve` reads it, or goes back to the features themselves.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avemo.data import shards
from avemo.data.features import OUTPUTS
from avemo.runs import installed
from media.errors import UserError
from media.faces import FaceOptions

FILENAME = "encoders.json"
MODALITIES = ("visual", "audio")
DEFAULT_FPS = 25.0
_FACE_OPTIONS = tuple(field.name for field in dataclasses.fields(FaceOptions))
_CLIP_OPTIONS = ("fps", "max_frames")  # what the preparation of clips takes beside `FaceOptions`


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Where the encoders of a run are, and what they were fed with.

    Attributes:
      visual, audio: run folders; None where the features have no such modality.
      fingerprints: of their weights, by modality.
      outputs: which of their outputs is the feature, by modality.
      faces: how faces were found and cut out of the training videos.
      fps: frames a second of the training features.
    """

    visual: str | None
    audio: str | None
    fingerprints: Mapping[str, str]
    outputs: Mapping[str, str]
    faces: FaceOptions
    fps: float


def describe(features: str | epath.Path) -> dict[str, Any]:
    """Gathers what `encoders.json` holds from a features data set and the clips that it was made from.

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
        raise UserError(f"{folder} has no extract.json: it was not made by `launch.py extract`; extract it again.")
    card = json.loads(path.read_text())
    out: dict[str, Any] = {m: card[m] for m in MODALITIES if card.get(m)}
    if card.get("clips") and epath.Path(card["clips"]).exists():
        made = shards.find_dataset(card["clips"]) / "card.json"
        arguments = json.loads(made.read_text()).get("arguments", {}) if made.exists() else {}
        known = {*_FACE_OPTIONS, *_CLIP_OPTIONS}
        out["faces"] = {k: v for k, v in arguments.items() if k in known}
    first = shards.splits(folder)[0]
    out["fps"] = float(shards.Shards(folder, first).fields(0, ("fps",))[0])
    return out


def record(workdir: str | epath.Path, features: str | epath.Path) -> None:
    """Writes `encoders.json` into a fusion run's folder."""
    (epath.Path(workdir) / FILENAME).write_text(json.dumps(describe(features), indent=2) + "\n")


def resolve(
    workdir: str | epath.Path, config: ConfigDict, visual: str | None = None, audio: str | None = None
) -> Encoders:
    """Finds the encoders of a fusion run.

    A folder that has moved together with the run is found beside it.

    Args:
      workdir: the fusion run; config: its config.
      visual, audio: run folders that replace the recorded ones.

    Raises:
      UserError: the run does not say by what its features were made, or an encoder is not where it was.
    """
    workdir = epath.Path(workdir)
    path = workdir / FILENAME
    card: dict[str, Any] = {}
    if path.exists():
        try:
            card = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON ({error}): pass --visual=RUN --audio=RUN.") from error
    elif config.data.get("features") and epath.Path(config.data.features).exists():
        card = describe(config.data.features)
    elif not (visual or audio):
        raise UserError(
            f"{workdir} has no {FILENAME} and its features ({config.data.get('features')}) are gone: "
            "name the encoders that made them by --visual=RUN --audio=RUN."
        )
    given = {"visual": visual, "audio": audio}
    found: dict[str, str | None] = {}
    for modality in MODALITIES:
        recorded = card.get(modality)
        if given[modality]:
            found[modality] = installed.find(given[modality])
        elif recorded:
            found[modality] = _locate(workdir, modality, recorded["workdir"])
        else:
            found[modality] = None
    prints = {m: card[m]["fingerprint"] for m in MODALITIES if card.get(m) and not given[m]}
    faces = face_options(card)
    if faces.detector_model and (workdir / faces.detector_model).exists():  # a released run brings its detector
        faces = dataclasses.replace(faces, detector_model=str(workdir / faces.detector_model))
    # Another encoder in the place of the recorded one has to give the same output.
    outputs = {m: (card.get(m) or {}).get("output", OUTPUTS[m]) for m in MODALITIES}
    fps = float(card.get("fps") or DEFAULT_FPS)
    return Encoders(**found, fingerprints=prints, outputs=outputs, faces=faces, fps=fps)


def face_options(card: Mapping[str, Any]) -> FaceOptions:
    """The face options in `encoders.json`; unknown keys of another version are left out."""
    return FaceOptions.from_mapping(card.get("faces") or {})


def _locate(workdir: epath.Path, modality: str, recorded: str) -> str:
    candidates = (
        epath.Path(recorded),
        workdir / "encoders" / modality,
        workdir.parent / epath.Path(recorded).name,
    )
    # A released run names its neighbours: what has the same name where a command happens to be run is another run.
    for candidate in reversed(candidates) if "/" not in recorded else candidates:
        if (candidate / "config.json").exists():
            return str(candidate)
    raise UserError(
        f"the {modality} encoder of {workdir} is not at {recorded} any more: name its run folder by --{modality}=RUN."
    )
