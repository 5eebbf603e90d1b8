"""The expression embedding: a map of faces, and the nearest neighbours of a face."""

import warnings

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from avemo.analysis.inputs import Faces
from avemo.analysis.pictures import Picture
from avemo.analysis.run import AnalysisRun
from avemo.predict.palette import COLOURS
from avemo.runs.encoder import Encoder
from media.errors import UserError


def embedding_map(run: AnalysisRun, faces: Faces | np.ndarray) -> np.ndarray:
    """Embeddings float32 `[N, D]` of face images uint8 `[N, S, S, 3]` by an expression run.

    Raises:
      UserError: the run is not a teacher or student.
    """
    images = faces.images if isinstance(faces, Faces) else faces
    return Encoder(str(run.folder), "visual")(images)["embedding"]


def project(embedding: np.ndarray, method: str = "pca") -> np.ndarray:
    """Projects embeddings `[N, D]` to `[N, 2]` by "pca", or by "umap" if `umap-learn` is installed."""
    if method == "pca":
        centred = embedding - embedding.mean(0)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        return left[:, :2] * scale[:2]
    if method != "umap":
        raise UserError(f"unknown projection {method!r}. Known: pca, umap.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # about TensorFlow, which is not needed
            import umap
    except ImportError as error:
        raise UserError(
            "method='umap' needs the package umap-learn: `pip install umap-learn`, or use 'pca'."
        ) from error
    return umap.UMAP(n_neighbors=min(15, len(embedding) - 1), random_state=0, n_jobs=1).fit_transform(embedding)


def nearest(embedding: np.ndarray, index: int, count: int = 8) -> np.ndarray:
    """Indices of the `count` faces nearest to face `index` (Euclidean), nearest first, excluding itself."""
    distance = np.linalg.norm(embedding - embedding[index], axis=1)
    distance[index] = np.inf
    return np.argsort(distance, kind="stable")[:count]


def plot_map(faces: Faces, coordinates: np.ndarray, thumbnails: int = 60) -> Figure:
    """Plots points at their coordinates `[N, 2]` in the colour of their label, and `thumbnails` of the faces."""
    out = Picture(figsize=(7.5, 6), dpi=120, layout="constrained")
    axes = out.subplots()
    for label in np.unique(faces.label):
        name = faces.class_names[label] if label >= 0 else "unlabelled"
        keep = faces.label == label
        x, y = coordinates[keep].T
        axes.scatter(x, y, s=14, color=COLOURS[label % len(COLOURS)], label=name)
    chosen = np.random.default_rng(0).permutation(len(coordinates))[:thumbnails]
    for i in chosen:
        image = OffsetImage(faces.images[i], zoom=26 / faces.images.shape[1])
        colour = COLOURS[faces.label[i] % len(COLOURS)]
        axes.add_artist(AnnotationBbox(image, coordinates[i], pad=0.1, bboxprops={"edgecolor": colour, "lw": 1.6}))
    axes.set(xticks=[], yticks=[])
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return out
