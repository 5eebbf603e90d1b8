"""One run of a release, with everything that its archive and its model card say about it."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from avemo.release.sources import Source


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a release.

    Attributes:
      name: its folder's name in the archive.
      workdir: its folder on this machine.
      config, result: contents of `config.json` and `result.json`.
      trained: fingerprint of its weights as they were trained.
      fingerprint: fingerprint of its weights in the archive.
      weights: bytes of `weights.npz`.
      encoders: names of a fusion run's encoders, by modality.
      recorded_encoders: contents of its `encoders.json` in the archive.
      detector: the weights file of the face detector, if the run names one.
      sources: what it learned from.
    """

    name: str
    workdir: str
    config: ConfigDict
    result: dict[str, Any]
    trained: str
    fingerprint: str
    weights: bytes
    encoders: dict[str, str]
    recorded_encoders: dict[str, Any]
    detector: pathlib.Path | None
    sources: tuple[Source, ...]
