"""Their own video: a run and a recording to valence, arousal or emotions over time, as files, a page, or live."""

from avemo.predict.command import FILES, one, predict
from avemo.predict.ensemble import Ensemble, open_models
from avemo.predict.predictor import Estimate, Predictor
from avemo.predict.session import Models
from avemo.predict.stream import Options, analyse
from avemo.predict.trace import Trace

__all__ = [
    "FILES",
    "Ensemble",
    "Estimate",
    "Models",
    "Options",
    "Predictor",
    "Trace",
    "analyse",
    "one",
    "open_models",
    "predict",
]
