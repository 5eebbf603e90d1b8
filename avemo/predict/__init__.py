"""From a recording to its trace: valence and arousal, or emotions, over time; as files, as a page, or live.

The path of a recording: `command` -> `stream` (`recording`, `face_tracks`, `sound_windows`) -> `session` -> `trace` ->
`trace_files`, `overlay`, `viewer`. A live stream goes through `predictor` instead of `stream`.
"""

from avemo.predict.command import FILES, predict, predict_file
from avemo.predict.models import Models, open_models
from avemo.predict.predictor import Estimate, Predictor
from avemo.predict.stream import Options, analyse
from avemo.predict.trace import Trace

__all__ = [
    "FILES",
    "Estimate",
    "Models",
    "Options",
    "Predictor",
    "Trace",
    "analyse",
    "open_models",
    "predict",
    "predict_file",
]
