"""A run, or several averaged, opened for prediction."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from avemo import configuration
from avemo.configuration import STREAMS
from avemo.predict.fusion import FusionNetwork
from avemo.runs import checkpoints, installed, recorded_encoders, run_folder, subruns
from avemo.runs.encoder import BATCH, TASKS, Encoder
from media.errors import UserError
from media.faces import FaceOptions

_ALIKE = ("task", "class_names", "faces", "fps", "delay")  # what averaged runs must have in common


@dataclasses.dataclass(frozen=True)
class RunNetworks:
    """The networks of one run, and how its training videos were prepared.

    Attributes:
      workdir: run folder; task: "audiovisual", "teacher", "student" or "audio".
      visual, audio: the encoders; None for a modality that the run does not read.
      fusion: the fusion network; None for a run of an encoder, which answers with its own heads.
      faces, fps: face options and frame rate of the training videos.
      delay: lag of the raters in s: the prediction for time t is their rating at t + delay.
      class_names: names of the classes; empty for valence and arousal.
      expert_names: of a fusion run, the classes of each encoder that has some, by modality.
      expert_priors: the log-shares of these classes `[C]` that the fusion takes out of the encoder's answers, if any.
    """

    workdir: str
    task: str
    visual: Encoder | None
    audio: Encoder | None
    fusion: FusionNetwork | None
    faces: FaceOptions
    fps: float
    delay: float
    class_names: tuple[str, ...]
    expert_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    expert_priors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Models:
    """Runs opened for prediction: one, or several of one kind whose predictions are averaged.

    The attributes of `RunNetworks` are those of the first run that has them.

    Attributes:
      runs: the runs.
    """

    runs: tuple[RunNetworks, ...]

    @property
    def workdir(self) -> str:
        """The run folders, separated by commas."""
        return ",".join(run.workdir for run in self.runs)

    @property
    def task(self) -> str:
        """See `RunNetworks`."""
        return self.runs[0].task

    @property
    def visual(self) -> Encoder | None:
        """The first visual encoder."""
        return next((run.visual for run in self.runs if run.visual), None)

    @property
    def audio(self) -> Encoder | None:
        """The first audio encoder."""
        return next((run.audio for run in self.runs if run.audio), None)

    @property
    def fusion(self) -> FusionNetwork | None:
        """The first run's fusion network."""
        return self.runs[0].fusion

    @property
    def faces(self) -> FaceOptions:
        """See `RunNetworks`."""
        return self.runs[0].faces

    @property
    def fps(self) -> float:
        """See `RunNetworks`."""
        return self.runs[0].fps

    @property
    def delay(self) -> float:
        """See `RunNetworks`."""
        return self.runs[0].delay

    @property
    def class_names(self) -> tuple[str, ...]:
        """See `RunNetworks`."""
        return self.runs[0].class_names

    @property
    def expert_names(self) -> Mapping[str, tuple[str, ...]]:
        """See `RunNetworks`; empty for several runs, whose encoders may differ."""
        return self.runs[0].expert_names if len(self.runs) == 1 else {}

    @property
    def expert_priors(self) -> Mapping[str, np.ndarray]:
        """See `RunNetworks`."""
        return self.runs[0].expert_priors

    @property
    def crop_size(self) -> int | None:
        """Side in pixels of the faces that a session takes; None: the size at which they were cut out."""
        sizes = {run.visual.image_size for run in self.runs if run.visual}
        return sizes.pop() if len(sizes) == 1 else None


def open_models(workdir: str, visual: str | None = None, audio: str | None = None, batch_size: int = BATCH) -> Models:
    """Opens a run, or several for averaging.

    Args:
      workdir: run folder or name of a released run; several separated by commas.
      visual, audio: encoder runs that replace the ones a fusion run recorded.
      batch_size: faces or windows per batch of an encoder.

    Raises:
      UserError: a run cannot be opened, or the runs do not fit together.
    """
    shared: dict[tuple[str, str], Encoder] = {}
    folders = installed.separate(installed.find(workdir)) or [workdir]
    runs = tuple(_open(folder, visual, audio, batch_size, shared) for folder in folders)
    for other in runs[1:]:
        for name in _ALIKE:
            if getattr(other, name) != getattr(runs[0], name):
                raise UserError(
                    f"{other.workdir} cannot be averaged with {runs[0].workdir}: their {name} differ "
                    f"({getattr(other, name)}, {getattr(runs[0], name)}). Name runs of one kind with --workdir."
                )
    return Models(runs)


def _open(
    workdir: str, visual: str | None, audio: str | None, batch_size: int, shared: dict[tuple[str, str], Encoder]
) -> RunNetworks:
    """Opens one run; `shared` holds the encoders that are open already, by folder and output."""

    def encoder(folder: str, modality: str, feature: str = "", fingerprint: str = "") -> Encoder:
        known = shared.get((folder, feature))
        if known is None or fingerprint not in ("", known.fingerprint):
            known = Encoder(folder, modality, feature=feature, fingerprint=fingerprint, batch_size=batch_size)
            shared[folder, feature] = known
        return known

    workdir = subruns.fusion_of(installed.find(workdir))
    config, variables = checkpoints.open_run(workdir, "run", ("audiovisual", *TASKS["visual"], *TASKS["audio"]))
    faces, fps, fusion, encoders = FaceOptions(), recorded_encoders.DEFAULT_FPS, None, {}
    experts: dict[str, tuple[str, ...]] = {}
    priors: dict[str, np.ndarray] = {}
    if config.task == "audiovisual":
        streams = configuration.streams(config.model)
        if streams != STREAMS:
            raise UserError(
                f"{workdir} reads the streams {', '.join(streams)}, which were not made by encoders of avemo: "
                "a video cannot be predicted with it, only features evaluated."
            )
        found = recorded_encoders.resolve(workdir, config, visual, audio)
        faces, fps, fusion = found.faces, found.fps, FusionNetwork(workdir, config, variables)
        for modality, folder, other in (("visual", found.visual, "audio"), ("audio", found.audio, "visual")):
            if folder and config.model.fusion != other:  # a fusion named after one modality does not read the other
                made_by = found.outputs[modality], found.fingerprints.get(modality, "")
                encoders[modality] = encoder(folder, modality, *made_by)
                if encoders[modality].classes and fusion.classes:
                    experts[modality] = _class_names(folder, encoders[modality].classes)
                    if prior := config.model.fusion_args.get(f"{modality}_prior"):
                        priors[modality] = np.array(prior, np.float32)
        _check_dims(workdir, fusion, encoders)
    else:
        modality = "audio" if config.task in TASKS["audio"] else "visual"
        encoders[modality] = encoder(workdir, modality)
    count = fusion.classes if fusion else next(iter(encoders.values())).classes
    return RunNetworks(
        workdir=str(workdir),
        task=config.task,
        visual=encoders.get("visual"),
        audio=encoders.get("audio"),
        fusion=fusion,
        faces=faces,
        fps=fps,
        delay=0.0 if config.task in TASKS["visual"] else float(config.data.get("delay") or 0.0),
        class_names=_class_names(workdir, count),
        expert_names=experts,
        expert_priors=priors,
    )


def _class_names(workdir: str, count: int) -> tuple[str, ...]:
    names = run_folder.class_names(workdir) if count else ()
    return names if len(names) == count else tuple(f"class_{i}" for i in range(count))


def _check_dims(workdir: str, fusion: FusionNetwork, encoders: dict[str, Encoder]) -> None:
    for modality, encoder in encoders.items():
        if encoder.dim != fusion.dims[modality]:
            raise UserError(
                f"{workdir} was trained on {modality} features of length {fusion.dims[modality]}, but the encoder "
                f"gives {encoder.dim}: name the right run with --{modality}=RUN."
            )
