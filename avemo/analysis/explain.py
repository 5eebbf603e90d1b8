"""What a prediction hangs on: pixels of a face, stretches of a modality."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from avemo.analysis.pictures import figure
from avemo.analysis.run import AnalysisRun, features_of
from avemo.metrics import DIMENSIONS
from avemo.models import expression
from avemo.predict.fusion import Fusion, FusionStream
from avemo.predict.palette import COLOURS
from avemo.runs.checkpoints import open_run
from media.errors import UserError, unknown


def integrated_gradients(
    run: AnalysisRun, image: np.ndarray, target: int | None = None, steps: int = 16
) -> tuple[np.ndarray, int]:
    """Integrated gradients of a class logit from a grey picture to the face (Sundararajan et al., arXiv 1703.01365).

    Args:
      run: a teacher or student; image: uint8 `[S, S, 3]` at the size it sees.
      target: the class; by default the predicted one.
      steps: points of the path, midpoint rule.

    Returns:
      Attribution float32 `[S, S]` (summed over channels; its total is the logit's rise from grey to face, up to the
      rule's error), and the class.
    """
    config, variables = open_run(str(run.folder), "run", ("teacher", "student"))
    model = expression.build(config.model)
    face, grey = image.astype(np.float32), np.full(image.shape, 127.5, np.float32)

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=False)["logits"]

    target = int(np.argmax(logits(face[None])[0])) if target is None else target
    gradient = jax.jit(
        jax.grad(lambda x, k: model.apply(variables, x, train=False)["logits"][:, k].sum()), static_argnums=1
    )
    total = np.zeros(face.shape, np.float32)
    for step in range(steps):  # one picture at a time: any size of network fits
        share = np.float32((step + 0.5) / steps)
        total += np.asarray(gradient(jnp.asarray((grey + share * (face - grey))[None]), target))[0]
    return ((face - grey) * total / steps).sum(-1), target


def plot_saliency(image: np.ndarray, attribution: np.ndarray, title: str = "") -> Figure:
    """A face beside its attribution `[S, S]`, slightly smoothed; purple speaks against the class, orange for it."""
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
    """How far the trace moves where a modality is taken away, second by second.

    Args:
      run: a fusion run; modality: "audio" or "visual".
      recording: by default the first of `split`; split: by default dev.
      width: s of each stretch that is masked, one after another.

    Returns:
      time float `[n]` of the middles of the stretches, and change float `[n, K]`: mean absolute change of each curve
      (of valence and arousal, or of the logits) within the stretch.
    """
    if modality not in ("audio", "visual"):
        raise unknown("modality", modality, ("audio", "visual"))
    config, variables = open_run(str(run.folder), "run", ("audiovisual",))
    chosen = features_of(run, recording, split)
    fusion = Fusion(str(run.folder), config, variables)
    name = "logits" if fusion.classes else "traces"
    size = max(1, round(width * chosen.fps))
    batch = {k: getattr(chosen, k) for k in ("audio", "visual", "audio_mask", "visual_mask")}

    def curve(values: dict[str, np.ndarray]) -> np.ndarray:
        stream = FusionStream(fusion)
        parts = [*stream.push({k: v[None] for k, v in values.items()}), *stream.finish()]
        return np.concatenate([part[name][0] for part in parts])

    whole, time, change = curve(batch), [], []
    for begin in range(0, len(chosen), size):
        part = slice(begin, begin + size)
        mask = batch[f"{modality}_mask"].copy()
        mask[part] = False
        moved = curve({**batch, f"{modality}_mask": mask})
        time.append(float(chosen.time[part].mean()))
        change.append(np.abs(moved - whole)[part].mean(0))
    return np.array(time), np.array(change)


def plot_occlusion(
    run: AnalysisRun, recording: str | None = None, split: str | None = None, width: float = 1.0
) -> Figure:
    """`occlusion` of both modalities, one panel a curve."""
    found = {m: occlusion(run, m, recording, split, width) for m in ("audio", "visual")}
    count = next(iter(found.values()))[1].shape[1]
    if count != len(DIMENSIONS):
        raise UserError("plot_occlusion draws valence and arousal; use `occlusion` for a run of emotions.")
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
