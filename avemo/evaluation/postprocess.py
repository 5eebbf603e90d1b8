"""Post-processing of predicted traces, fitted on dev and applied unchanged to test.

The chain of the AVEC challenges, in this order (Trigeorgis et al. 2016; Valstar et al. 2016): median filter, centring
(bias), scaling by the ratio of standard deviations *about the mean*, time shift. Each step is fitted for each dimension
by itself and kept only if the dev CCC rises by it, under one convention without falling under the other, so fitting
never lowers the dev CCC.

    python -m avemo.postprocess --workdir=RUN     # fits on predictions/dev.npz; writes RUN/postprocess.json
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from scipy import ndimage

from avemo.metrics import significance
from media.errors import UserError

MEDIANS = (0.4, 0.8, 1.2, 2.0, 4.0, 8.0, 12.0, 20.0)  # s; the range searched by the challenges' entries
LONGEST_SHIFT = 10.0  # s
_COARSE = 0.4  # s between the shifts tried first; traces are smooth, so the best lies beside the best of these
DIMENSIONS = ("valence", "arousal")


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps kept for one dimension, with their effect on dev.

    Attributes:
      median: window of the median filter, s; 0: none.
      bias: added to the trace; 0: none.
      centre, scale: the trace becomes `centre + scale · (trace − centre)`; scale 1: none.
      shift: the trace is moved earlier by so many seconds (negative: later); 0: none.
      kept: names of the steps that are applied.
      before, after: dev CCC of this dimension (mean over recordings).
    """

    median: float = 0.0
    bias: float = 0.0
    centre: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    kept: tuple[str, ...] = ()
    before: float = 0.0
    after: float = 0.0

    def apply(self, trace: np.ndarray, fps: float) -> np.ndarray:
        """Applies the kept steps to a trace `[T]` at `fps` Hz; the ends are held where a step looks beyond them."""
        x = median_filtered(trace, self.median, fps) + self.bias
        return moved_earlier(self.centre + self.scale * (x - self.centre), self.shift, fps)


def median_filtered(trace: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """Median over a centred window of an odd number of frames, about `seconds` long; float64 `[T]`."""
    size = 2 * round(seconds * fps / 2) + 1
    x = np.asarray(trace, np.float64)
    return x if size <= 1 else ndimage.median_filter(x, size=size, mode="nearest")


def moved_earlier(trace: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """Value t becomes that of t + `seconds`; the last (first) value is held where the trace has none."""
    index = np.arange(len(trace)) + round(seconds * fps)
    return trace[np.clip(index, 0, len(trace) - 1)]


def fit_dimension(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    fps: Sequence[float],
    *,
    per: str = "concatenated",
) -> Steps:
    """Fits the chain for one dimension.

    Args:
      predictions: R predicted traces `[T]`, R ≥ 1; targets: gold standard `[T]`; masks: bool `[T]`, labelled frames.
      fps: frames a second of each recording.
      per: the CCC that must rise: "concatenated" (the challenges') or "recording" (their mean); the other may not fall.

    Raises:
      UserError: no labelled frame, or a trace that is not finite.
    """
    masks = [np.asarray(m, bool) for m in masks]
    if not any(m.any() for m in masks):
        raise UserError("post-processing needs labelled frames on dev: this split has none.")
    if not all(np.isfinite(p).all() for p in predictions):
        raise UserError("a predicted trace is not finite: post-processing cannot be fitted to it.")

    def scores(traces: Sequence[np.ndarray]) -> np.ndarray:
        moments = significance.moments([t[:, None] for t in traces], [t[:, None] for t in targets], masks)[None]
        both = [significance.ccc_per_recording(moments).mean(), significance.ccc_concatenated(moments).mean()]
        return np.array(both if per == "recording" else both[::-1])

    best = first = scores(predictions)
    traces = [np.asarray(p, np.float64) for p in predictions]
    kept: dict[str, float] = {}

    def attempt(name: str, values: Sequence[float], change: Callable[[np.ndarray, float, float], np.ndarray]) -> None:
        """Keeps the best of `values` if the CCC rises by it."""
        nonlocal best, traces
        start = traces
        for value in values:
            candidate = [change(t, value, f) for t, f in zip(start, fps, strict=True)]
            score = scores(candidate)
            if score[0] > best[0] and score[1] >= best[1]:
                best, traces, kept[name] = score, candidate, float(value)

    def labelled(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.asarray(v, np.float64)[m] for v, m in zip(values, masks, strict=True)])

    gold = labelled(targets)
    longest = max(m.sum() / f for m, f in zip(masks, fps, strict=True))
    attempt("median", [s for s in MEDIANS if s < longest / 2], median_filtered)
    attempt("centring", [gold.mean() - labelled(traces).mean()], lambda t, bias, _: t + bias)
    now = labelled(traces)
    centre, ratio = now.mean(), gold.std() / max(now.std(), 1e-8)
    attempt("scaling", [ratio], lambda t, scale, _: centre + scale * (t - centre))
    reach = min(LONGEST_SHIFT, longest / 4)
    coarse = np.arange(_COARSE, reach + 1e-9, _COARSE)
    unshifted = traces
    attempt("shift", [s for c in coarse for s in (c, -c)], moved_earlier)
    # Then frame by frame around the best; around none as well, for delays below the coarse grid.
    middle, traces = kept.get("shift", 0.0), unshifted
    frame = 1 / max(fps)
    attempt("shift", np.unique(np.round(middle + np.arange(-_COARSE, _COARSE + frame / 2, frame), 6)), moved_earlier)
    index = 0 if per == "recording" else 1
    return Steps(
        median=kept.get("median", 0.0),
        bias=kept.get("centring", 0.0),
        centre=float(centre),
        scale=kept.get("scaling", 1.0),
        shift=kept.get("shift", 0.0),
        kept=tuple(kept),
        before=float(first[index]),
        after=float(best[index]),
    )


def fit(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    fps: Sequence[float],
    *,
    per: str = "concatenated",
) -> tuple[Steps, ...]:
    """Fits the chain for each dimension of R traces `[T, C]`; see `fit_dimension`."""
    dimensions = predictions[0].shape[1]
    return tuple(
        fit_dimension([p[:, c] for p in predictions], [t[:, c] for t in targets], masks, fps, per=per)
        for c in range(dimensions)
    )


def apply(steps: Sequence[Steps], trace: np.ndarray, fps: float) -> np.ndarray:
    """Applies fitted steps to one recording's trace `[T, C]`; float32 `[T, C]`."""
    return np.stack([s.apply(trace[:, c], fps) for c, s in enumerate(steps)], -1).astype(np.float32)


def split_recordings(predictions: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Cuts `predictions/<split>.npz` of a run into recordings: name, fps, prediction, target `[T, C]`, mask `[T]`."""
    cuts = np.cumsum(predictions["length"])[:-1]
    times = np.split(predictions["time"], cuts)
    out: dict[str, list[Any]] = {k: np.split(predictions[k], cuts) for k in ("prediction", "target", "mask")}
    # A mean of the time stamps' differences would follow a gap; the median does not.
    out["fps"] = [float(1 / np.median(np.diff(t))) if len(t) > 1 else 25.0 for t in times]
    out["recording"] = list(predictions["recording"])
    return out


def read_predictions(workdir: str | epath.Path, split: str) -> dict[str, np.ndarray]:
    """Reads a run's predictions of a split.

    Raises:
      UserError: there are none.
    """
    path = epath.Path(workdir) / "predictions" / f"{split}.npz"
    if not path.exists():
        raise UserError(f"{path} is missing: finish the run with `launch.py train`, which writes it.")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def run(workdir: str | epath.Path, *, per: str = "concatenated") -> dict[str, Any]:
    """Fits on a run's dev predictions and scores every split before and after; writes `postprocess.json`.

    Returns:
      `{"steps": {dimension: {...}}, "metrics": {split: {"before": {...}, "after": {...}}}}`.

    Raises:
      UserError: the run has no dev predictions, or predicts classes and not traces.
    """
    folder = epath.Path(workdir)
    dev = read_predictions(folder, "dev")
    if "prediction" not in dev:
        raise UserError(f"{folder} predicts classes: post-processing is for valence and arousal traces.")
    rows = split_recordings(dev)
    steps = fit(rows["prediction"], rows["target"], rows["mask"], rows["fps"], per=per)
    metrics = {}
    for path in sorted((folder / "predictions").glob("*.npz")):
        rows = split_recordings(read_predictions(folder, path.stem))
        after = [apply(steps, p, f) for p, f in zip(rows["prediction"], rows["fps"], strict=True)]
        metrics[path.stem] = {
            name: {
                "ccc_recording": significance.ccc_per_recording(moments).mean(),
                "ccc_concatenated": significance.ccc_concatenated(moments).mean(),
            }
            for name, moments in (
                ("before", significance.moments(rows["prediction"], rows["target"], rows["mask"])[None]),
                ("after", significance.moments(after, rows["target"], rows["mask"])[None]),
            )
        }
    out = {"steps": {d: dataclasses.asdict(s) for d, s in zip(DIMENSIONS, steps, strict=True)}, "metrics": metrics}
    (folder / "postprocess.json").write_text(json.dumps(out, indent=2) + "\n")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command `python -m avemo.postprocess`."""
    parser = argparse.ArgumentParser(description="Fit post-processing on a run's dev predictions; score every split.")
    parser.add_argument("--workdir", required=True, help="run folder")
    parser.add_argument("--per", choices=("recording", "concatenated"), default="concatenated", help="the CCC to raise")
    args = parser.parse_args(argv)
    try:
        print(json.dumps(run(args.workdir, per=args.per), indent=2))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
