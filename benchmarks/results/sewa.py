"""Valence and arousal of SEWA from nine systems' traces: seven folds, and one culture from the other."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from avemo import metrics
from avemo.metrics import significance
from avemo.sweep import plan, pooled
from benchmarks.peers import regressions
from benchmarks.results import measures
from benchmarks.results.experiment import Experiment
from benchmarks.results.steps import Place, Step
from configs.results.sewa import FACES, SOUND
from media.errors import UserError

FOLDER, DATA = "sewa_devel", "sewa"
SYSTEMS = {
    "deepspectrum": "predictions_deepspectrum",
    "egemaps_func": "predictions_egemaps-func_STD",
    "egemaps_xbow": "predictions_egemaps-xbow",
    "mfcc_func": "predictions_mfcc-func_STD",
    "mfcc_xbow": "predictions_mfcc-xbow",
    "visual_func": "predictions_visual-func",
    "visual_resnet": "predictions_visual-resnet",
    "visual_vgg": "predictions_visual-vgg",
    "visual_xbow": "predictions_visual-xbow",
}
FOLDS, CULTURES, TABLE = (f"configs/ablations/sewa.py:{name}" for name in ("folds", "cultures", "table"))
PUBLISHED = {"arousal": 0.6138, "valence": 0.6154}  # an SVR that was trained and scored on Devel
OURS = "avemo"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Which recordings are tested, and what is to be reached.

    Attributes:
      key: of the peers' predictions.
      title: in words.
      part: of a name, which the tested recordings have.
      reach, aim: arousal and valence.
    """

    key: str
    title: str
    part: str
    reach: tuple[float, float]
    aim: tuple[float, float]


PROTOCOLS = {
    "sewa_folds": Protocol("folds", "SEWA, seven folds", "", (0.58, 0.58), (0.64, 0.64)),
    "sewa_de_hu": Protocol("de_hu", "SEWA, German to Hungarian", "_HU_", (0.53, 0.35), (0.58, 0.42)),
    "sewa_hu_de": Protocol("hu_de", "SEWA, Hungarian to German", "_DE_", (0.64, 0.65), (0.68, 0.70)),
}


def data(place: Place) -> Step:
    """The step that makes shards of the systems' traces."""

    def streams(names: Sequence[str]) -> str:
        return ",".join(f"{SYSTEMS[name]}:name={name}" for name in names)

    return Step(
        f"data/{DATA}",
        (
            *("-m", "data_prep", "features", f"--source={place.source / FOLDER}", f"--output={place.work / 'data'}"),
            *(f"--name={DATA}", f"--labels={regressions.LABELS}", "--group=_(DE|HU)_", "--workers=2"),
            *(f"--audio={streams(SOUND)}", f"--visual={streams(FACES)}"),
        ),
    )


def _sweep(place: Place, spec: str) -> Step:
    name = spec.rpartition(":")[2]
    return Step(
        f"sweeps/sewa_{name}",
        (
            *("launch.py", "sweep", f"--config={spec}", f"--workdir={place.run(f'sewa_{name}')}"),
            f"--config.data.features={place.data(DATA)}",
        ),
    )


def _peers(place: Place) -> Step:
    arguments = (f"--source={place.source / FOLDER}", f"--output={place.peer('sewa')}")
    return Step("peers/sewa", ("-m", "benchmarks.peers.regressions", *arguments), peer=True)


def _steps(place: Place, protocol: Protocol) -> list[Step]:
    return [data(place), _sweep(place, FOLDS if protocol.key == "folds" else CULTURES), _peers(place)]


@functools.cache
def _read(place: Place) -> tuple[list[str], dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Names, each system's traces `[T', 2]`, T' ≥ T, and the gold traces `[T, 2]`, by recording."""
    source = place.source / FOLDER
    names = sorted(path.stem for path in (source / regressions.LABELS).glob("*.csv"))
    if not names:
        raise UserError(f"{source / regressions.LABELS} has no traces: see the layout in docs/sewa.md.")
    gold = [regressions.traces(source / regressions.LABELS / f"{name}.csv") for name in names]
    said = {
        system: [regressions.traces(source / folder / f"{name}.csv") for name in names]
        for system, folder in SYSTEMS.items()
    }
    return names, said, gold


def _out_of_fold(place: Place, spec: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """The pooled predictions of each setting: of each seed a trace by recording."""
    sweep, folder = plan.load(spec), epath.Path(place.run(f"sewa_{spec.rpartition(':')[2]}"))
    out = {}
    for candidates in plan.cells(sweep):
        found = pooled.choose(sweep, candidates, folder)
        name = candidates[0][0].setting
        if found is None or len(found.cells) < sweep.seeds:
            raise UserError(f"{folder}: setting {name!r} is not finished: see logs/sweeps_sewa_*.log.")
        out[name] = [_by_recording(predictions) for predictions in found.predictions]
    return out


def _by_recording(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    cuts = np.cumsum(predictions["length"])[:-1]
    traces = np.split(predictions["prediction"], cuts)
    return {str(name): trace for name, trace in zip(predictions["recording"], traces, strict=True)}


def _score(traces: Sequence[Sequence[np.ndarray]], gold: Sequence[np.ndarray], dimension: slice) -> significance.Score:
    """The CCC over all frames of S seeds' traces, of both dimensions or one; resampled by recording."""
    masks = [np.ones(len(g), bool) for g in gold]
    targets = [g[:, dimension] for g in gold]
    sums = [metrics.recording_sums([t[:, dimension] for t in seed], targets, masks) for seed in traces]
    return significance.ccc_concatenated(np.stack(sums))


BOTH = slice(None)
EACH = {"valence": slice(0, 1), "arousal": slice(1, 2)}


def _systems(place: Place, protocol: Protocol) -> tuple[dict[str, list[list[np.ndarray]]], list[np.ndarray]]:
    """Traces of every system by seed and recording, and the gold traces, of the tested recordings."""
    names, said, gold = _read(place)
    tested = [number for number, name in enumerate(names) if protocol.part in name]
    ours = _out_of_fold(place, FOLDS if protocol.key == "folds" else CULTURES)
    systems = {name: [[seed[names[n]] for n in tested] for seed in seeds] for name, seeds in ours.items()}
    means = {"mean of the nine": (*SOUND, *FACES), "mean of the faces": FACES, "mean of the sound": SOUND}
    for title, members in means.items():
        systems[title] = [[np.mean([said[system][n] for system in members], 0) for n in tested]]
    found = measures.load(place.peer("sewa"))
    cuts = np.cumsum([len(gold[n]) for n in tested])[:-1]
    for method, title in (("ridge", "CV ridge, ±15 frames"), ("svr", "linear SVR, ±15 frames")):
        systems[title] = [np.split(found[f"{method}_{protocol.key}"], cuts)]
    for system in SYSTEMS:
        systems[f"{system} alone"] = [[said[system][n] for n in tested]]
    return systems, [gold[n] for n in tested]


def _cut(traces: Sequence[Sequence[np.ndarray]], gold: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The traces without the frames after the last label."""
    return [[x[: len(g)] for x, g in zip(seed, gold, strict=True)] for seed in traces]


def _measure(place: Place, protocol: Protocol) -> dict[str, Any]:
    systems, gold = _systems(place, protocol)
    seeds = max(len(traces) for traces in systems.values())
    # A reference has one seed, repeated for each of ours.
    systems = {name: [*traces, *[traces[-1]] * (seeds - len(traces))] for name, traces in systems.items()}
    padded = {name: _padded(systems[name], gold) for name in (OURS, "mean of the nine", "mean of the faces")}
    systems = {name: _cut(traces, gold) for name, traces in systems.items()}
    whole = {name: _score(traces, gold, BOTH) for name, traces in systems.items()}
    each = {
        name: {d: _score(traces, gold, column).mean() for d, column in EACH.items()} for name, traces in systems.items()
    }
    ours = [name for name in systems if name.startswith(OURS)]
    first, (arousal, valence) = each[ours[0]], protocol.reach
    beside = [name for name in systems if name not in ours and not name.endswith("alone")]
    return {
        "metric": "CCC",
        "unit": "recording",
        "seeds": seeds,
        "scores": [measures.score(n, score, ours=n in ours, **each[n]) for n, score in whole.items()],
        "differences": [measures.difference(ours[0], n, whole[ours[0]], whole[n]) for n in [*ours[1:], *beside]],
        "checks": [
            measures.check(f"arousal {arousal}", first["arousal"] >= arousal),
            measures.check(f"valence {valence}", first["valence"] >= valence),
            measures.check(f"aim arousal {protocol.aim[0]}", first["arousal"] >= protocol.aim[0]),
            measures.check(f"aim valence {protocol.aim[1]}", first["valence"] >= protocol.aim[1]),
        ],
        "ours": first,
        "padded": padded,
        "published": PUBLISHED,
    }


def _padded(traces: Sequence[Sequence[np.ndarray]], gold: Sequence[np.ndarray]) -> dict[str, float]:
    """The CCCs with every recording padded to the longest by its last value, as the challenge's script scores.

    The systems' traces go on after the last label; those are scored as they are.
    """
    longest = max(len(x) for x in (*gold, *(x for seed in traces for x in seed)))

    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, longest - len(x)), (0, 0)], mode="edge")

    return {
        name: _score([[pad(x) for x in seed] for seed in traces], [pad(g) for g in gold], column).mean()
        for name, column in EACH.items()
    }


def _measure_table(place: Place) -> dict[str, Any]:
    names, _, gold = _read(place)
    found = {
        setting: [[seed[name] for name in names] for seed in seeds]
        for setting, seeds in _out_of_fold(place, TABLE).items()
    }
    scores = {setting: _score(traces, gold, BOTH) for setting, traces in found.items()}
    reference = plan.load(TABLE).reference
    # The reference first: the summary shows the first row, and the best was found on the tested recordings.
    ranked = sorted(scores, key=lambda setting: (setting != reference, -scores[setting].mean()))
    differences = [measures.difference(n, reference, scores[n], scores[reference]) for n in ranked if n != reference]
    for row, adjusted in zip(differences, significance.holm([row["p"] for row in differences]), strict=True):
        row["p_holm"] = float(adjusted)
    return {
        "metric": "CCC",
        "unit": "recording",
        "seeds": len(next(iter(found.values()))),
        "scores": [
            measures.score(
                n, scores[n], ours=True, **{d: _score(found[n], gold, column).mean() for d, column in EACH.items()}
            )
            for n in ranked
        ],
        "differences": differences,
        "checks": [],
        "grid": _grid({n: score.mean() for n, score in scores.items() if n != reference}),
        "prior": scores[reference].mean(),
        "settings": len(differences),
        "better": sum(row["p_holm"] < 0.05 and row["value"] > 0 for row in differences),
        "worse": sum(row["p_holm"] < 0.05 and row["value"] < 0 for row in differences),
    }


def _grid(scores: Mapping[str, float]) -> str:
    """A table of the settings' scores, fusions down and temporal models across."""
    fusions, models = (sorted({name.split(", ")[place] for name in scores}) for place in (0, 1))
    lines = [f"| | {' | '.join(models)} |", "|---|" + "---|" * len(models)]
    for fusion in fusions:
        cells = (f"{scores[f'{fusion}, {model}']:.3f}" for model in models)
        lines.append(f"| {fusion} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _experiment(name: str, protocol: Protocol) -> Experiment:
    where = {
        "folds": "recording i of the 28, sorted by name, is tested in fold i mod 7",
        "de_hu": "14 German recordings to learn from, 14 Hungarian ones tested",
        "hu_de": "14 Hungarian recordings to learn from, 14 German ones tested",
    }[protocol.key]
    return Experiment(
        name,
        protocol.title,
        f"Devel of AVEC 2019 CES, {where}; CCC over all frames of the tested recordings, none padded",
        lambda place: _steps(place, protocol),
        lambda place: _measure(place, protocol),
        page="sewa.md",
    )


EXPERIMENTS = {
    **{name: _experiment(name, protocol) for name, protocol in PROTOCOLS.items()},
    "sewa_table": Experiment(
        "sewa_table",
        "SEWA, fusions and temporal models",
        "The seven folds; every network adds to the same prior, with the same budget",
        lambda place: [data(place), _sweep(place, TABLE)],
        _measure_table,
        page="sewa.md",
    ),
}
