"""The plan of a sweep: settings × search candidates × seeds of one experiment, and the command of each cell."""

import dataclasses
import itertools
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avemo import configuration
from media.errors import UserError, unknown

Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A comparison of settings, as a file in configs/ablations returns it.

    All settings share experiment, budget, search and seeds; only their own fields differ.

    Attributes:
      title: heading of the tables.
      experiment: the config that every cell runs, `path.py[:variant]`.
      settings: one table row each: fields by dotted name, as `--config.NAME=value` would set them. The key `name` is
        the label; without it the label is made of the values.
      common: fields that all cells share.
      search: candidates tried for every setting; the one with the best mean dev score is reported.
      seeds: number of seeds, 0 … seeds − 1.
      reference: label of the setting that the others are compared with; "" means the first.
      note: a sentence that the tables add about themselves.
      folds: cross-validation over this number of folds of the data set, whose out-of-fold predictions are pooled; 0:
        the data set's own splits.
      fold_by: what the folds are of: "recording", "subject" or "group".
      dev_parts: of how many parts of the other folds' subjects one is dev; 0: none, so that nothing can be chosen.
      nested: every part is dev in turn, and the networks of a fold are averaged; otherwise one part is.
      per_dimension: valence and arousal each have their own candidate.
      average: number of the best candidates of a fold whose predictions are averaged. With few recordings the best is
        often best by chance.
      postprocess: whether the predictions of folds are also scored after post-processing.
    """

    title: str
    experiment: str
    settings: Sequence[Fields]
    common: Fields = dataclasses.field(default_factory=dict)
    search: Sequence[Fields] = ({},)
    seeds: int = 5
    reference: str = ""
    note: str = ""
    folds: int = 0
    fold_by: str = "subject"
    dev_parts: int = 4
    nested: bool = True
    per_dimension: bool = False
    average: int = 1
    postprocess: bool = True


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep: overrides of the experiment and a seed; `folder` is its run folder in the workdir.

    `fold` is "i/n" in cross-validation.
    """

    setting: str
    candidate: str
    experiment: str
    overrides: tuple[str, ...]
    seed: int
    folder: str
    fold: str = ""

    def config(self) -> ConfigDict:
        """The cell's config.

        Raises:
          UserError: the experiment does not take a field or value.
        """
        return configuration.load(self.experiment, self.overrides)

    def command(self, workdir: str | epath.Path) -> str:
        """The command that trains this cell alone."""
        arguments = (
            "launch.py",
            "train",
            f"--config={self.experiment}",
            f"--workdir={epath.Path(workdir) / self.folder}",
        )
        return shlex.join(("python", *arguments, *self.overrides))


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number drawn uniformly between `low` and `high`, or log-uniformly; rounded to 4 digits."""

    low: float
    high: float
    log: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        """Draws one value."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return float(f"{value:.4g}")


def random(axes: Mapping[str, Sequence[Any] | Uniform], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` random settings, reproducible by `seed`: a value of each sequence, a number from each `Uniform`."""
    rng = np.random.default_rng(seed)

    def draw(axis: Sequence[Any] | Uniform) -> Any:
        return axis.draw(rng) if isinstance(axis, Uniform) else axis[int(rng.integers(len(axis)))]

    return [{name: draw(axis) for name, axis in axes.items()} for _ in range(count)]


def load(spec: str, overrides: Sequence[str] = ()) -> Sweep:
    """Loads a sweep `path.py[:variant]`; an override sets its `seeds`, `folds`, `fold_by` or `title`, or a field of
    every cell.

    Raises:
      UserError: the file is not a sweep, or an override is malformed.
    """
    sweep = configuration.load(spec)
    if not isinstance(sweep, Sweep):
        raise UserError(f"{spec} is not a sweep: use a file in configs/ablations, or `launch.py train` for this one.")
    common = dict(sweep.common)
    for override in overrides:
        name, separator, text = override.removeprefix("--config.").partition("=")
        if not override.startswith("--config.") or not separator:
            raise UserError(f"{override!r} is not an override: write --config.path.to.field=value.")
        if name == "seeds":
            if not text.isdecimal() or not int(text):
                raise UserError(f"--config.seeds takes a number of seeds, not {text!r}.")
            sweep = dataclasses.replace(sweep, seeds=int(text))
        elif name == "folds":
            if not text.isdecimal() or int(text) == 1:
                raise UserError(f"--config.folds takes 0 or a number of folds above 1, not {text!r}.")
            sweep = dataclasses.replace(sweep, folds=int(text))
        elif name == "title":
            sweep = dataclasses.replace(sweep, title=text)
        elif name == "fold_by":
            sweep = dataclasses.replace(sweep, fold_by=text)
        else:
            common[name] = text
    return dataclasses.replace(sweep, common=common)


def label(setting: Fields, axes: Sequence[str]) -> str:
    """The setting's name: its `name`, or the values of the fields that differ between settings."""
    if "name" in setting:
        return str(setting["name"])
    shown = [k for k in setting if k in axes] or list(setting)
    if len(shown) == 1 and isinstance(setting[shown[0]], str):
        return setting[shown[0]]
    return ", ".join(f"{k.rpartition('.')[2]}={_text(setting[k])}" for k in shown) or "default"


def cells(sweep: Sweep) -> list[list[list[Cell]]]:
    """The cells by setting, candidate and seed: `[setting][candidate][seed]`; in cross-validation by fold and dev part
    before the seed: `[setting][candidate][fold · part · seed]`.

    Raises:
      UserError: there is no setting, two settings have the same name, the reference is not one of them, or folds have
        several candidates and no dev part to choose on.
    """
    if sweep.folds and not sweep.dev_parts and len(sweep.search) > 1:
        raise UserError(
            f"sweep {sweep.title!r} searches over folds: set dev_parts, on which the candidates are compared."
        )
    out = []
    for name, setting in zip(_names(sweep), sweep.settings, strict=True):
        fields = {key: value for key, value in setting.items() if key != "name"}
        out.append([_seeds(sweep, name, fields, candidate) for candidate in sweep.search])
    return out


def _names(sweep: Sweep) -> list[str]:
    """The settings' names, checked."""
    axes = [
        field
        for field in dict.fromkeys(field for setting in sweep.settings for field in setting)
        if len({repr(setting.get(field)) for setting in sweep.settings}) > 1
    ]
    names = [label(setting, axes) for setting in sweep.settings]
    if not names:
        raise UserError(f"sweep {sweep.title!r}: there is no setting.")
    slugs = [_slug(name) for name in names]
    repeated = sorted({name for name in names if slugs.count(_slug(name)) > 1})
    if repeated:
        raise UserError(
            f"sweep {sweep.title!r}: two settings are called {repeated[0]!r}, or nearly so: give them a 'name'."
        )
    if sweep.reference and sweep.reference not in names:
        raise unknown("reference setting", sweep.reference, names)
    return names


def _seeds(sweep: Sweep, setting: str, fields: Fields, candidate: Fields) -> list[Cell]:
    """The cells of one setting and candidate."""
    name = label(candidate, list(candidate)) if candidate else ""
    overrides = [f"--config.{k}={_text(v)}" for k, v in {**sweep.common, **candidate, **fields}.items() if k != "name"]
    folder = "/".join(("cells", _slug(setting), *([_slug(name)] if name else [])))
    return [
        Cell(
            setting=setting,
            candidate=name,
            experiment=sweep.experiment,
            overrides=(*overrides, *own, f"--config.seed={seed}"),
            seed=seed,
            folder=f"{folder}/{place}seed_{seed}",
            fold=fold,
        )
        for fold, place, own in _folds(sweep)
        for seed in range(sweep.seeds)
    ]


def _folds(sweep: Sweep) -> list[tuple[str, str, tuple[str, ...]]]:
    """The folds and their dev parts: "i/n", a part of the run folder, and overrides."""
    if not sweep.folds:
        return [("", "", ())]
    out: list[tuple[str, str, tuple[str, ...]]] = []
    for number in range(sweep.folds):
        fold = f"{number}/{sweep.folds}"
        own = (f"--config.data.fold={fold}", f"--config.data.fold_by={sweep.fold_by}")
        every = range(sweep.dev_parts) if sweep.nested else [number % max(1, sweep.dev_parts)]
        for part in every if sweep.dev_parts else []:
            out.append(
                (fold, f"fold_{number}/part_{part}/", (*own, f"--config.data.dev_part={part}/{sweep.dev_parts}"))
            )
        if not sweep.dev_parts:
            out.append((fold, f"fold_{number}/", (*own, "--config.eval_splits=()")))
    return out


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return repr({k: v for k, v in value.items()})
    return str(value)


def _slug(name: str) -> str:
    """A folder name made of a label."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", name).strip("-.") or "setting"
