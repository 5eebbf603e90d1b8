"""A run opened for reading: tables, pictures and questions that one asks of a trained network, for notebooks and Colab.

    import avemo
    run = avemo.load("runs/fusion")
    run.curves(), run.fields()
    avemo.analysis.plot_trace(run, "dev")

Tables are pandas data frames, pictures Matplotlib figures in colours that everybody can tell apart. Nothing needs the
flags of the run, an accelerator or TensorFlow.
"""

from avemo.analysis import explain
from avemo.analysis.embeddings import embedding_map, nearest, plot_map, project
from avemo.analysis.explain import integrated_gradients, occlusion, plot_occlusion, plot_saliency
from avemo.analysis.pictures import (
    plot_calibration,
    plot_confusion,
    plot_curves,
    plot_delay,
    plot_faces,
    plot_gates,
    plot_trace,
    plot_window,
)
from avemo.analysis.run import AnalysisRun, Faces, browse, clip_window, faces, load, sound_of
from avemo.analysis.tables import calibration, compare, confusion, delay_curve, recordings, worst_windows

__all__ = [
    "AnalysisRun",
    "Faces",
    "browse",
    "calibration",
    "clip_window",
    "compare",
    "confusion",
    "delay_curve",
    "embedding_map",
    "explain",
    "faces",
    "integrated_gradients",
    "load",
    "nearest",
    "occlusion",
    "plot_calibration",
    "plot_confusion",
    "plot_curves",
    "plot_delay",
    "plot_faces",
    "plot_gates",
    "plot_map",
    "plot_occlusion",
    "plot_saliency",
    "plot_trace",
    "plot_window",
    "project",
    "recordings",
    "sound_of",
    "worst_windows",
]
