"""Opens a run for reading: tables, pictures and explanations of a trained network, for notebooks and Colab.

    import avemo
    run = avemo.load("runs/fusion")
    run.curves(), run.fields()
    avemo.analysis.plot_trace(run, "dev")

Tables are pandas data frames. Pictures are Matplotlib figures in colours that remain distinct with any colour vision.
Nothing needs the run's flags, an accelerator or TensorFlow.
"""

from avemo.analysis import explain
from avemo.analysis.attention import attention, plot_attention
from avemo.analysis.augmented import augmented_faces, augmented_sound, plot_augmentations
from avemo.analysis.embeddings import embedding_map, nearest, plot_map, project
from avemo.analysis.explain import integrated_gradients, occlusion, plot_occlusion, plot_saliency
from avemo.analysis.inputs import Faces, clip_window, faces, features_of, sound_of, subjects
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
from avemo.analysis.run import AnalysisRun, browse, load
from avemo.analysis.tables import calibration, compare, confusion, delay_curve, recordings, speakers, worst_windows

__all__ = [
    "AnalysisRun",
    "Faces",
    "attention",
    "augmented_faces",
    "augmented_sound",
    "browse",
    "calibration",
    "clip_window",
    "compare",
    "confusion",
    "delay_curve",
    "embedding_map",
    "explain",
    "faces",
    "features_of",
    "integrated_gradients",
    "load",
    "nearest",
    "occlusion",
    "plot_attention",
    "plot_augmentations",
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
    "speakers",
    "subjects",
    "worst_windows",
]
