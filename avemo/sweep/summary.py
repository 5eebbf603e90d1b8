"""The results of each setting: scores averaged over seeds, intervals over recordings, corrected comparisons."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from avemo.metrics import significance
from avemo.sweep import finished, plan, pooled
from avemo.sweep.finished import FinishedSeeds, Postprocessed

DIMENSIONS = ("ccc_valence", "ccc_arousal", "macro_f1")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A seed-mean score: value, standard deviation over seeds, 95 % bootstrap interval over recordings."""

    value: float
    deviation: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class SettingScores:
    """The scores of a setting's finished seeds.

    Attributes:
      metric: name of the main score.
      chosen: whether checkpoints were chosen among several by their dev score.
      main: CCC over the concatenation, or UAR for emotions.
      second: mean CCC of the recordings, or accuracy.
      dimensions: further seed means by name: CCC of each dimension, or macro-F1.
      recordings: main score of each recording, seed mean, by name.
      alone: by stream, the seed-mean main score of the same checkpoints with the other streams masked.
      without: the same with only that stream masked, if there are more than two.
      processed: scores after post-processing; None for emotions, or without labels on dev.
      parameters, flops, step_seconds: cost; FLOPs are of the forward pass of one frame.
    """

    metric: str
    chosen: bool
    main: Interval
    second: Interval
    dimensions: Mapping[str, float]
    recordings: Mapping[str, float]
    alone: Mapping[str, float]
    without: Mapping[str, float]
    processed: Postprocessed | None
    parameters: int
    flops: int | None
    step_seconds: float | None


@dataclasses.dataclass(frozen=True)
class SettingResult:
    """One setting, finished or not.

    Attributes:
      name: its label.
      split: the split that all settings are scored on.
      candidate: the search candidate chosen on dev; "" without a search.
      seeds: number of finished seeds.
      wanted: number of seeds asked for.
      folds: number of folds whose predictions are pooled; 0 without cross-validation.
      error: why a cell failed or could not be scored on the split; "" if none did.
      command: the command that makes its first seed alone.
      reference: whether the others are compared with it.
      folders: run folders of the finished seeds.
      unscored: splits that its runs could not be scored on, with the reason.
      scores: None until a seed is finished.
      comparison: with the reference on the same recordings and seeds; None for the reference itself.
      p_holm: p-value of the comparison, corrected for the number of settings compared.
    """

    name: str
    split: str
    candidate: str
    seeds: int
    wanted: int
    error: str
    command: str
    reference: bool = False
    folders: Sequence[str] = ()
    unscored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scores: SettingScores | None = None
    comparison: significance.Comparison | None = None
    p_holm: float | None = None
    folds: int = 0


def results(sweep: plan.Sweep, folder: epath.Path) -> list[SettingResult]:
    """The settings of a sweep, in its order, from the cells that are finished in `folder`."""
    settings = plan.cells(sweep)
    reference = sweep.reference or settings[0][0][0].setting
    split = finished.scored_split([cell for candidates in settings for seeds in candidates for cell in seeds], folder)
    chosen = {candidates[0][0].setting: _choose(sweep, candidates, folder, split) for candidates in settings}
    out = []
    for candidates, (name, seeds) in zip(settings, chosen.items(), strict=True):
        result = _result(candidates, seeds, folder, split)
        result = dataclasses.replace(result, reference=name == reference)
        base = chosen[reference]
        if seeds and base and name != reference:
            result = dataclasses.replace(result, comparison=finished.compare(seeds, base))
        out.append(result)
    corrected = iter(significance.holm([r.comparison.p for r in out if r.comparison]).tolist())
    return [dataclasses.replace(r, p_holm=next(corrected)) if r.comparison else r for r in out]


def _choose(
    sweep: plan.Sweep, candidates: Sequence[Sequence[plan.Cell]], folder: epath.Path, split: str
) -> FinishedSeeds | None:
    return pooled.choose(sweep, candidates, folder) if sweep.folds else finished.choose(candidates, folder, split)


def _result(
    candidates: Sequence[Sequence[plan.Cell]], seeds: FinishedSeeds | None, folder: epath.Path, split: str
) -> SettingResult:
    first = seeds.cells[0] if seeds else candidates[0][0]
    errors = [error for cells in candidates for cell in cells if (error := finished.failure(cell, folder, split))]
    return SettingResult(
        name=first.setting,
        split=split,
        candidate=seeds.candidate if seeds else first.candidate,
        seeds=len(seeds.cells) if seeds else 0,
        wanted=len({cell.seed for cell in candidates[0]}),
        folds=seeds.folds if seeds else 0,
        error=errors[0] if errors else "",
        command=first.command(folder),
        folders=[cell.folder for cell in seeds.cells] if seeds else (),
        unscored=seeds.results[0].get("unscored", {}) if seeds else {},
        scores=_scores(seeds, folder) if seeds else None,
    )


def _scores(seeds: FinishedSeeds, folder: epath.Path) -> SettingScores:
    first, config = seeds.results[0], seeds.cells[0].config()
    names = DIMENSIONS[:2] if seeds.has_traces else DIMENSIONS[2:]
    return SettingScores(
        metric="CCC" if seeds.has_traces else "UAR",
        chosen=config.eval_every < config.steps,
        main=_interval(seeds.main),
        second=_interval(seeds.second),
        dimensions={name: value for name in names if (value := seeds.mean(name)) is not None},
        recordings=seeds.by_recording(),
        alone=seeds.streams("modalities"),
        without=seeds.streams("without"),
        processed=finished.postprocessed(seeds, folder),
        parameters=first["parameters"],
        flops=first.get("flops"),
        step_seconds=float(np.mean([r["step_seconds"] for r in seeds.results])) if "step_seconds" in first else None,
    )


def _interval(score: significance.Score) -> Interval:
    seeds = score.seeds()
    deviation = float(seeds.std(ddof=1)) if len(seeds) > 1 else float("nan")
    return Interval(score.mean(), deviation, *significance.bootstrap(score))
