"""Post-processing of predicted traces, fitted on dev and applied unchanged to test.

The chain of the AVEC challenges, in this order (Trigeorgis et al. 2016; Valstar et al. 2016): median filter, centring
(bias), scaling by the ratio of standard deviations *about the mean*, time shift. Each step is fitted per dimension and
kept only if it raises the dev CCC under one convention without lowering it under the other, so fitting never lowers the
dev CCC.

    python -m avemo.postprocess --workdir=RUN     # fits on predictions/dev.npz; writes RUN/postprocess.json
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from scipy import ndimage

from avemo import metrics
from avemo.metrics import significance
from avemo.runs import run_folder
from media.errors import UserError
from media.standard_output import ends_quietly

MEDIANS = (0.4, 0.8, 1.2, 2.0, 4.0, 8.0, 12.0, 20.0)  # s; the range searched by the challenges' entries
LONGEST_SHIFT = 10.0  # s
_COARSE = 0.4  # s between the shifts tried first; traces are smooth, so the best shift lies near the best of these
Change = Callable[[np.ndarray, float, float], np.ndarray]  # (trace, value, fps) -> trace


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps kept for one dimension, with their effect on dev.

    Attributes:
      median: window of the median filter, s; 0 means no filter.
      bias: added to the trace.
      centre, scale: the trace becomes `centre + scale · (trace − centre)`.
      shift: seconds by which the trace is moved earlier; negative moves it later.
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
        """Applies the kept steps to a trace `[T]` at `fps` Hz; its end values are held beyond the ends."""
        x = median_filtered(trace, self.median, fps) + self.bias
        return moved_earlier(self.centre + self.scale * (x - self.centre), self.shift, fps)


def median_filtered(trace: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """Median over a centred window of an odd number of frames, about `seconds` long; float64 `[T]`."""
    size = 2 * round(seconds * fps / 2) + 1
    x = np.asarray(trace, np.float64)
    return x if size <= 1 else ndimage.median_filter(x, size=size, mode="nearest")


def moved_earlier(trace: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """The trace moved earlier by `seconds` (later if negative); its end values are held beyond the ends."""
    index = np.arange(len(trace)) + round(seconds * fps)
    return trace[np.clip(index, 0, len(trace) - 1)]


class _Search:
    """The traces of one dimension, as changed so far, and the steps kept for them.

    Args:
      targets, masks, fps: as for `fit_dimension`.
      traces: R predicted traces `[T]`.
      per: the CCC that must rise.
    """

    def __init__(
        self,
        traces: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        fps: Sequence[float],
        per: str,
    ):
        self.traces: list[np.ndarray] = [np.asarray(trace, np.float64) for trace in traces]
        self.kept: dict[str, float] = {}
        self._targets, self._masks, self._fps, self._per = targets, masks, fps, per
        self.best = self._scores(self.traces)

    def _scores(self, traces: Sequence[np.ndarray]) -> np.ndarray:
        """The CCC that must rise, and the other, which may not fall."""
        both = list(_ccc([t[:, None] for t in traces], [t[:, None] for t in self._targets], self._masks).values())
        return np.array(both if self._per == "recording" else both[::-1])

    def attempt(self, name: str, values: Iterable[float], change: Change) -> None:
        """Tries a step with each value, and keeps the best one if it raises the CCC."""
        start = self.traces
        for value in values:
            candidate = [change(trace, value, fps) for trace, fps in zip(start, self._fps, strict=True)]
            scores = self._scores(candidate)
            if scores[0] > self.best[0] and scores[1] >= self.best[1]:
                self.best, self.traces, self.kept[name] = scores, candidate, float(value)

    def labelled(self, traces: Sequence[np.ndarray]) -> np.ndarray:
        """The labelled frames of all recordings."""
        return np.concatenate([np.asarray(t, np.float64)[m] for t, m in zip(traces, self._masks, strict=True)])


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
      predictions: R predicted traces `[T]`, R ≥ 1.
      targets: R gold traces `[T]`.
      masks: R arrays bool `[T]`, the labelled frames.
      fps: frames per second of each recording.
      per: the CCC that must rise: "concatenated" (the challenges') or "recording" (mean over recordings). The other may
        not fall.

    Raises:
      UserError: no frame is labelled, or a trace is not finite.
    """
    masks = [np.asarray(m, bool) for m in masks]
    if not any(m.any() for m in masks):
        raise UserError("post-processing needs labelled frames on dev: this split has none.")
    if not all(np.isfinite(p).all() for p in predictions):
        raise UserError("a predicted trace is not finite: post-processing cannot be fitted to it.")
    search = _Search(predictions, targets, masks, fps, per)
    first = search.best
    gold = search.labelled(targets)
    longest = max(float(m.sum()) / f for m, f in zip(masks, fps, strict=True))

    search.attempt("median", [s for s in MEDIANS if s < longest / 2], median_filtered)
    search.attempt("centring", [gold.mean() - search.labelled(search.traces).mean()], lambda t, bias, _: t + bias)
    now = search.labelled(search.traces)
    centre, ratio = now.mean(), gold.std() / max(now.std(), 1e-8)
    search.attempt("scaling", [ratio], lambda t, scale, _: centre + scale * (t - centre))

    reach = min(LONGEST_SHIFT, longest / 4)
    unshifted = search.traces
    search.attempt("shift", [s for c in np.arange(_COARSE, reach + 1e-9, _COARSE) for s in (c, -c)], moved_earlier)
    # Then frame by frame around the best shift; around 0 if none helped, for delays below the coarse grid.
    search.traces, frame = unshifted, 1 / max(fps)
    near = search.kept.get("shift", 0.0) + np.arange(-_COARSE, _COARSE + frame / 2, frame)
    search.attempt("shift", np.unique(np.round(near, 6)), moved_earlier)

    kept, index = search.kept, 0 if per == "recording" else 1
    return Steps(
        median=kept.get("median", 0.0),
        bias=kept.get("centring", 0.0),
        centre=float(centre),
        scale=kept.get("scaling", 1.0),
        shift=kept.get("shift", 0.0),
        kept=tuple(kept),
        before=float(first[index]),
        after=float(search.best[index]),
    )


def _ccc(
    predictions: Sequence[np.ndarray], targets: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> dict[str, float]:
    """CCC of traces `[T, K]` under both conventions."""
    sums = metrics.recording_sums(predictions, targets, masks)[None]
    return {
        "ccc_recording": significance.ccc_per_recording(sums).mean(),
        "ccc_concatenated": significance.ccc_concatenated(sums).mean(),
    }


def fit(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    fps: Sequence[float],
    *,
    per: str = "concatenated",
) -> tuple[Steps, ...]:
    """Fits the chain for each dimension of R traces `[T, K]`; see `fit_dimension`."""
    return tuple(
        fit_dimension([p[:, k] for p in predictions], [t[:, k] for t in targets], masks, fps, per=per)
        for k in range(predictions[0].shape[1])
    )


def apply(steps: Sequence[Steps], trace: np.ndarray, fps: float) -> np.ndarray:
    """Applies fitted steps to one recording's trace `[T, K]`; float32 `[T, K]`."""
    return np.stack([s.apply(trace[:, k], fps) for k, s in enumerate(steps)], -1).astype(np.float32)


def split_recordings(predictions: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Cuts `predictions/<split>.npz` of a run into recordings: name, fps, prediction, target `[T, K]`, mask `[T]`."""
    cuts = np.cumsum(predictions["length"])[:-1]
    times = np.split(predictions["time"], cuts)
    out: dict[str, list[Any]] = {k: np.split(predictions[k], cuts) for k in ("prediction", "target", "mask")}
    # A gap would shift the mean of the time stamps' differences; it leaves the median alone.
    out["fps"] = [float(1 / np.median(np.diff(t))) if len(t) > 1 else 25.0 for t in times]
    out["recording"] = list(predictions["recording"])
    return out


def read_predictions(workdir: str | epath.Path, split: str) -> dict[str, np.ndarray]:
    """Reads a run's predictions of a split.

    Raises:
      UserError: the file is missing, or cannot be read.
    """
    path = epath.Path(workdir) / "predictions" / f"{split}.npz"
    if not path.exists():
        raise UserError(f"{path} is missing: finish the run with `launch.py train`, which writes it.")
    return run_folder.read_predictions(path)


def run(workdir: str | epath.Path, *, per: str = "concatenated") -> dict[str, Any]:
    """Fits on a run's dev predictions, scores every labelled split before and after, and writes `postprocess.json`.

    Returns:
      `{"steps": {dimension: {...}}, "metrics": {split: {"before": {...}, "after": {...}}}}`.

    Raises:
      UserError: the run has no dev predictions, or predicts classes instead of traces.
    """
    folder = epath.Path(workdir)
    dev = read_predictions(folder, "dev")
    if "prediction" not in dev:
        raise UserError(f"{folder} predicts classes: post-processing is for valence and arousal traces.")
    recordings = split_recordings(dev)
    steps = fit(recordings["prediction"], recordings["target"], recordings["mask"], recordings["fps"], per=per)
    scores = {}
    for path in sorted((folder / "predictions").glob("*.npz")):
        recordings = split_recordings(read_predictions(folder, path.stem))
        if not any(mask.any() for mask in recordings["mask"]):
            continue  # for example a test split whose labels are not public
        before, gold = recordings["prediction"], (recordings["target"], recordings["mask"])
        after = [apply(steps, trace, fps) for trace, fps in zip(before, recordings["fps"], strict=True)]
        scores[path.stem] = {"before": _ccc(before, *gold), "after": _ccc(after, *gold)}
    named = {d: dataclasses.asdict(s) for d, s in zip(metrics.DIMENSIONS, steps, strict=True)}
    out = {"steps": named, "metrics": scores}
    (folder / "postprocess.json").write_text(json.dumps(out, indent=2) + "\n")
    return out


@ends_quietly
def main(argv: list[str] | None = None) -> int:
    """The command `python -m avemo.postprocess`."""
    parser = argparse.ArgumentParser(description="Fits post-processing on a run's dev predictions; scores every split.")
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
