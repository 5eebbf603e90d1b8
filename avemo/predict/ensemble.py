"""Several runs as one: their mean, and how far they are apart."""

from collections.abc import Sequence

import numpy as np

from avemo import metrics
from avemo.predict.networks import BATCH, Network
from avemo.predict.session import Models, encode
from avemo.runs import installed
from media.errors import UserError

_ALIKE = ("task", "class_names", "faces", "fps", "delay")  # what the members of an ensemble must have in common


def open_models(
    workdir: str, visual: str | None = None, audio: str | None = None, batch_size: int = BATCH
) -> "Models | Ensemble":
    """Opens a run, or several as an ensemble: folders, or names of released runs, separated by commas.

    Raises:
      UserError: a run cannot be opened, or the runs do not fit together.
    """
    folders = [folder for folder in installed.find(workdir).split(",") if folder]
    if len(folders) < 2:
        return Models(workdir, visual, audio, batch_size)
    return Ensemble(folders, visual, audio, batch_size)


class Ensemble:
    """Several runs of one kind with the attributes of `Models`; an encoder that they share runs once."""

    def __init__(
        self, folders: Sequence[str], visual: str | None = None, audio: str | None = None, batch_size: int = BATCH
    ):
        opened: dict[tuple[str, str], Network] = {}
        self.members = [Models(folder, visual, audio, batch_size, opened) for folder in folders]
        first = self.members[0]
        for other in self.members[1:]:
            for name in _ALIKE:
                if getattr(other, name) != getattr(first, name):
                    raise UserError(
                        f"{other.workdir} cannot be averaged with {first.workdir}: their {name} differ "
                        f"({getattr(other, name)}, {getattr(first, name)}). Name runs of one kind by --workdir."
                    )
        self.workdir = ",".join(member.workdir for member in self.members)
        self.task, self.class_names, self.classes = first.task, first.class_names, first.classes
        self.faces, self.fps, self.delay, self.head = first.faces, first.fps, first.delay, first.head
        self.visual, self.audio = (
            next((n for member in self.members if (n := getattr(member, m)) is not None), None)
            for m in ("visual", "audio")
        )
        sizes = {member.crop_size for member in self.members} - {None}
        self.crop_size = sizes.pop() if len(sizes) == 1 else None

    def session(self, persons: int, live: bool = False) -> "EnsembleSession":
        """The runs over one recording."""
        return EnsembleSession(self, persons, live)


class EnsembleSession:
    """As `Session`; its outputs hold "members" `[B, t, M, K]` beside their mean: traces, or probabilities."""

    def __init__(self, ensemble: Ensemble, persons: int, live: bool):
        self._members = [(member, member.session(persons, live)) for member in ensemble.members]
        self._held: list[list[dict[str, np.ndarray]]] = [[] for _ in self._members]

    def push(
        self, faces: Sequence[np.ndarray], face_mask: np.ndarray, windows: np.ndarray, audio_mask: np.ndarray
    ) -> list[dict[str, np.ndarray]]:
        """See `Session.push`; frames come out when all members have settled them."""
        encoded: dict[int, dict[str, np.ndarray]] = {}
        for held, (member, session) in zip(self._held, self._members, strict=True):
            for network, inputs, mask in ((member.visual, faces, face_mask), (member.audio, windows, audio_mask[None])):
                if id(network) not in encoded:
                    encoded[id(network)] = encode(network, inputs, mask)
            held += session.fuse(encoded[id(member.visual)], encoded[id(member.audio)], face_mask, audio_mask)
        return self._settled()

    def finish(self) -> list[dict[str, np.ndarray]]:
        """Outputs of the frames that are still held."""
        for held, (_, session) in zip(self._held, self._members, strict=True):
            held += session.finish()
        return self._settled()

    def _settled(self) -> list[dict[str, np.ndarray]]:
        count = min(sum(next(iter(part.values())).shape[1] for part in held) for held in self._held)
        if not count:
            return []
        ready = []
        for i, held in enumerate(self._held):
            whole = {name: np.concatenate([part[name] for part in held], axis=1) for name in held[0]}
            ready.append({name: value[:, :count] for name, value in whole.items()})
            rest = {name: value[:, count:] for name, value in whole.items()}
            self._held[i] = [rest] if next(iter(rest.values())).shape[1] else []
        return [combine(ready)]


def combine(outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs `[B, T, ...]` of several runs as those of one.

    Returns:
      "traces", the mean, or "logits", the logarithm of the mean probability; "members" `[B, T, M, K]`, what each run
      says (traces, or probabilities); "gates", their mean, where all runs have them.
    """
    if "traces" in outputs[0]:
        members = np.stack([out["traces"] for out in outputs], axis=2)
        combined = {"traces": members.mean(2)}
    else:
        members = np.stack([metrics.softmax(out["logits"]) for out in outputs], axis=2).astype(np.float32)
        combined = {"logits": np.log(np.maximum(members.mean(2), np.float32(1e-12)))}
    combined["members"] = members
    if all("gates" in out for out in outputs):
        combined["gates"] = np.mean([out["gates"] for out in outputs], axis=0)
    return combined
