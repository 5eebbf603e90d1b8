"""What a prediction depends on: pixels of a face, stretches of a modality."""

from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from avemo import configuration
from avemo.analysis.inputs import features_of
from avemo.analysis.pictures import figure
from avemo.analysis.run import AnalysisRun
from avemo.data.features import stream_fields
from avemo.metrics import DIMENSIONS
from avemo.models import expression
from avemo.predict.fusion import FusionNetwork, FusionStream
from avemo.predict.palette import COLOURS
from avemo.runs.checkpoints import open_run
from media.errors import UserError, unknown


def integrated_gradients(
    run: AnalysisRun, image: np.ndarray, target: int | None = None, steps: int = 16
) -> tuple[np.ndarray, int]:
    """Integrated gradients of a class logit from a grey image to the face (Sundararajan et al., arXiv 1703.01365).

    Args:
      run: a teacher or student.
      image: uint8 `[S, S, 3]` at the run's image size.
      target: the class; by default the predicted one.
      steps: points on the path (midpoint rule).

    Returns:
      Attribution float32 `[S, S]`, summed over channels, and the class. The attribution adds up to the logit's rise
      from grey to face, up to the error of the midpoint rule.
    """
    config, variables = open_run(str(run.folder), "run", ("teacher", "student"))
    model = expression.build(config.model)
    face, grey = image.astype(np.float32), np.full(image.shape, 127.5, np.float32)

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, images, train=False)
        return outputs["logits"]

    target = int(np.argmax(logits(face[None])[0])) if target is None else target
    gradient = jax.jit(jax.grad(lambda x, k: logits(x)[:, k].sum()), static_argnums=1)
    total = np.zeros(face.shape, np.float32)
    for step in range(steps):  # one image at a time, so that any network fits into memory
        share = np.float32((step + 0.5) / steps)
        total += np.asarray(gradient(jnp.asarray((grey + share * (face - grey))[None]), target))[0]
    return ((face - grey) * total / steps).sum(-1), target


def plot_saliency(image: np.ndarray, attribution: np.ndarray, title: str = "") -> Figure:
    """Plots a face beside its attribution `[S, S]`, slightly smoothed: orange supports the class, purple opposes it."""
    out, panels = figure(5, 2.6, 1, 2)
    attribution = cv2.GaussianBlur(attribution, (0, 0), attribution.shape[0] / 50)  # single pixels mean little
    limit = float(np.quantile(np.abs(attribution), 0.99)) or 1.0
    panels[0, 0].imshow(image)
    panels[0, 1].imshow(image.mean(-1), cmap="gray", alpha=0.4)
    panels[0, 1].imshow(attribution, cmap="PuOr_r", vmin=-limit, vmax=limit, alpha=0.8)
    for axes in panels[0]:
        axes.set_axis_off()
    out.suptitle(title, fontsize=10)
    return out


def occlusion(
    run: AnalysisRun, modality: str, recording: str | None = None, split: str | None = None, width: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """How far the prediction moves when a modality is masked, one stretch after another.

    Args:
      run: a fusion run.
      modality: "audio" or "visual".
      recording: by default the first of `split`.
      split: by default dev.
      width: length of each masked stretch, s.

    Returns:
      time float `[n]`, the middles of the stretches, and change float `[n, K]`, the mean absolute change of each curve
      (valence and arousal, or the logits) within the stretch.
    """
    config, variables = open_run(str(run.folder), "run", ("audiovisual",))
    streams = configuration.streams(config.model)
    if modality not in streams:
        raise unknown("modality", modality, streams)
    chosen = features_of(run, recording, split)
    fusion = FusionNetwork(str(run.folder), config, variables)
    name = "logits" if fusion.classes else "traces"
    size = max(1, round(width * chosen.fps))
    batch = {field: chosen.stream(field) for field in stream_fields(streams)}

    def curve(values: dict[str, np.ndarray]) -> np.ndarray:
        stream = FusionStream(fusion)
        outputs = [*stream.push({k: v[None] for k, v in values.items()}), *stream.finish()]
        return np.concatenate([output[name][0] for output in outputs])

    whole, time, change = curve(batch), [], []
    for begin in range(0, len(chosen), size):
        stretch = slice(begin, begin + size)
        mask = batch[f"{modality}_mask"].copy()
        mask[stretch] = False
        moved = curve({**batch, f"{modality}_mask": mask})
        time.append(float(chosen.time[stretch].mean()))
        change.append(np.abs(moved - whole)[stretch].mean(0))
    return np.array(time), np.array(change)


def plot_occlusion(
    run: AnalysisRun, recording: str | None = None, split: str | None = None, width: float = 1.0
) -> Figure:
    """Plots `occlusion` of every stream, one panel per dimension."""
    streams = configuration.streams(run.config["model"])
    found = {m: occlusion(run, m, recording, split, width) for m in streams}
    count = next(iter(found.values()))[1].shape[1]
    if count != len(DIMENSIONS):
        raise UserError("plot_occlusion draws valence and arousal: use `occlusion` for a run of emotions.")
    out, panels = figure(9, 3.6, count, 1, sharex=True, sharey=True)
    for k, axes in enumerate(panels[:, 0]):
        for colour, (modality, (time, change)) in zip(COLOURS, found.items(), strict=False):
            axes.plot(time, change[:, k], color=colour, label=f"without {modality}")
        axes.set_ylabel(f"change of\n{DIMENSIONS[k]}")
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
    panels[0, 0].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    panels[-1, 0].set_xlabel("time (s)")
    return out
