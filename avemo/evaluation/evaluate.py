"""Scores a run's best checkpoint on its own data or on other shards."""

import dataclasses
import json
import os
from typing import Any

from etils import epath

from avemo import tasks
from avemo.evaluation import adaptation
from avemo.evaluation.scoring import make_evaluator, try_to_score
from avemo.metrics import shared_classes
from avemo.runs import checkpoints, installed, run_folder
from media.errors import UserError, unknown
from media.files import write_atomically, write_errors


def evaluate(
    workdir: str,
    data: str | None = None,
    split: str | None = None,
    flip: bool = False,
    output: str | None = None,
    adapt: str = "",
) -> dict[str, dict[str, float]]:
    """Evaluates a run; none of the flags of its training are needed.

    The data may be another corpus. If only one of run and data knows a class, its records are left out and its
    probabilities dropped (`avemo.metrics.shared_classes`). A run of faces scores clips by the mean over their frames.
    Splits without labels of the right kind are skipped and reported in the log and in `evaluation.json`.

    Args:
      workdir: run folder, or the name of a released run, which comes without its data.
      data: prepared shards; by default those that the run was trained on. On other shards a student is not compared
        with its teacher.
      split: one split; by default all but `train` (or `train` if there is no other).
      flip: for faces: score the mean over each picture and its mirror image.
      output: folder for the predictions, `SPLIT.npz`; by default `predictions/` of the run if `data` is its own.
      adapt: for faces: `statistics`, `person` or both, comma-separated: fit the network to each split's people without
        labels (`avemo.evaluation.adaptation`).

    Returns:
      Metrics by split; also written to `evaluation.json` in the run folder, with the data's fingerprint. If the run
      folder cannot be written, that file is in `output` too.

    Raises:
      UserError: no checkpoint, no such data or split, data of another kind, or no split that can be scored.
    """
    workdir = installed.find(workdir)
    config, step, variables = checkpoints.load(workdir)
    if data is None and checkpoints.released(workdir):
        raise UserError(f"{workdir} is a released run, which has no data with it: pass --data=SHARDS.")
    own = data is None
    options = Options(own, flip, adaptation.parse(adapt), () if own else run_folder.class_names(workdir))
    stage = tasks.make(config)
    options.check(config.task)
    scored = tasks.open_data(stage, data)
    if not own and not options.class_names:
        scored.check_classes()
    if options.adapt and len(scored.folders) > 1:
        raise UserError(_ADAPT_NEEDS)
    place = epath.Path(workdir)
    if output is not None and checkpoints.released(workdir):  # its folder is a cache's, or ends with this process
        place = epath.Path(output)
    elif "://" not in workdir and not os.access(workdir, os.W_OK):
        if output is None:
            raise UserError(f"{workdir} cannot be written: pass --output=DIR for the predictions and evaluation.json.")
        place = epath.Path(output)
    with write_errors(place):
        results, unscored = _score(stage, scored, variables, options, split, _folder(workdir, output, options))
        entry = {"step": int(step), **_about(scored, options), "metrics": results}
        entry |= {"unscored": unscored} if unscored else {}
        write_atomically(place / "evaluation.json", json.dumps(entry, indent=2, default=float) + "\n")
    return results


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is evaluated.

    Attributes:
      own: the data is what the run was trained on.
      flip: faces are scored by the mean over each picture and its mirror image.
      adapt: how the network is fitted to the people of a split (`avemo.evaluation.adaptation`).
      class_names: the run's classes, if the data may have others.
    """

    own: bool = True
    flip: bool = False
    adapt: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def check(self, task: str) -> None:
        """Checks that the options suit a run of `task`.

        Raises:
          UserError: they do not.
        """
        if task in ("teacher", "student"):
            return
        if self.flip:
            raise UserError(f"mirror images are for runs of faces (teacher, student), this is one of task {task!r}.")
        if self.adapt:
            raise UserError(_ADAPT_NEEDS)

    @property
    def plain(self) -> bool:
        """Whether the run is evaluated as in training."""
        return self.own and not self.flip and not self.adapt


_ADAPT_NEEDS = "--adapt is for runs of faces (teacher, student), on one data set: pass --data=SHARDS."


def _folder(workdir: str, output: str | None, options: Options) -> epath.Path | None:
    """Where predictions go; None: they are not kept."""
    if output is not None:
        return epath.Path(output)
    return epath.Path(workdir) / "predictions" if options.plain else None


def _score(
    stage: tasks.Stage,
    data: tasks.StageData,
    variables: dict[str, Any],
    options: Options,
    split: str | None,
    output: epath.Path | None,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Scores by split, and the reasons of splits that cannot be scored.

    Raises:
      UserError: no such split, or none that can be scored.
    """
    available = data.splits_of_any()
    if split is not None and split not in available:
        raise unknown("split", split, available)
    chosen = [split] if split else [name for name in available if name != "train"] or available
    # On other data a student is not compared with its teacher, which may be gone.
    constants = stage.constants() if options.own else {}
    scoring = tasks.Scoring(options.class_names, "person" in options.adapt)
    run = make_evaluator(stage, data, constants, scoring=scoring, flip=options.flip)
    results: dict[str, dict[str, float]] = {}
    unscored: dict[str, str] = {}
    for name in chosen:
        found = try_to_score(run, _fitted(stage, data, variables, options, name), name, unscored)
        if found is not None:
            results[name] = found[0]
            if output is not None:
                run_folder.save_predictions(output, name, found[1])
    if not results:
        none = f"no split of {', '.join(data.folders.values())} has labels to score."
        raise tasks.Unscorable(unscored[chosen[0]] if len(chosen) == 1 else none)
    return results, unscored


def _fitted(
    stage: tasks.Stage, data: tasks.StageData, variables: dict[str, Any], options: Options, split: str
) -> dict[str, Any]:
    """The variables, with batch statistics of the split's faces if requested."""
    if "statistics" not in options.adapt:
        return variables
    (folder,) = data.folders.values()
    images = adaptation.faces(folder, split, stage.config.model.image_size)
    return adaptation.statistics(stage.config, variables, images)


def _about(data: tasks.StageData, options: Options) -> dict[str, Any]:
    """What `evaluation.json` says about the data and the options."""
    names = options.class_names
    differ = bool(names and data.class_names) and names != data.class_names
    return {
        "data": data.fingerprints(),
        "paths": dict(data.folders),
        **({"classes": list(shared_classes.shared(names, data.class_names))} if differ else {}),
        **({"flip": True} if options.flip else {}),
        **({"adapt": list(options.adapt)} if options.adapt else {}),
    }
