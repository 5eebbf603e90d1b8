"""The model card of a release. Every name and figure in it is read from the runs themselves."""

from collections.abc import Iterator, Sequence
from typing import Any

from avemo.release.member import Member
from avemo.release.sources import Source
from avemo.version import __version__

_KINDS = {
    "teacher": "facial expression from a face",
    "student": "facial expression from a face, distilled from a teacher",
    "audio": "emotion from the voice",
    "audiovisual": "emotion from face and voice over time",
}
_USE = """\
## Intended use

Research and teaching on how displayed emotion can be read from faces and voices; trying this software on recordings
of people who agreed to it; a starting point for training on your own data.

Not for decisions about people (work, school, health, insurance, police, borders), for watching people who did not
agree, or for identifying anybody.

## Limits

- A run predicts which expression raters would have named, or how they would have rated it, not what a person feels.
- The scores below hold for the splits that they name. Other cameras, rooms, languages and ages were not measured, nor
  was natural emotion if the data are acted, nor were scores by sex, age or skin colour.
- A marked split chose the checkpoint, so its scores are optimistic.
- Probabilities are calibrated for these data at best (`ece` says how well), not for others.
"""


def write(members: Sequence[Member], filename: str) -> str:
    """Returns the text of `MODEL_CARD.md`.

    Args:
      members: the runs, sorted by name.
      filename: the archive's name, for the commands in the text.
    """
    lines = [
        "# Model card",
        "",
        f"Trained runs of avemo {__version__} (audio-visual emotion recognition, after arXiv 2103.09154).",
        "",
        "| run | what it predicts | parameters | weights | commercial use |",
        "|---|---|---|---|---|",
    ]
    every = {member.name: member for member in members}
    for member in members:
        barred = any(source.restricted for source in _all_sources(member, every))
        lines.append(
            f"| `{member.name}` | {_KINDS[member.config.task]}: {_answers(member)} | {_parameters(member)} "
            f"| {len(member.weights) / 1e6:.1f} MB | {'**no**' if barred else 'see its sources'} |"
        )
    first = next((m.name for m in members if m.config.task == "audiovisual"), members[0].name)
    lines += [
        "",
        "## How to use it",
        "",
        f"    python launch.py release --install={filename}",
        f"    python launch.py predict --workdir={first} --input=clip.mp4 --output=DIR",
        "",
        f'or in Python `avemo.predict.Predictor("{first}")`, `avemo.load("{first}")`. Installing checks every file',
        "against `manifest.json`.",
        "",
        _USE,
        "## Licences",
        "",
        "The code is under Apache-2.0. The weights were learned from the sources below, whose conditions limit their",
        "use. This archive holds no data.",
        "",
    ]
    lines += _licences(members)
    for member in members:
        lines += ["", *_section(member)]
    return "\n".join(lines) + "\n"


def _answers(member: Member) -> str:
    names = member.result.get("class_names") or []
    count = int(member.config.model.get("num_classes") or 0)
    if not count:
        return "valence and arousal"
    return ", ".join(names) if len(names) == count else f"{count} classes"


def _parameters(member: Member) -> str:
    return f"{member.result['parameters']:,}" if "parameters" in member.result else "not recorded"


def _all_sources(member: Member, members: dict[str, Member]) -> Iterator[Source]:
    yield from member.sources
    for name in member.encoders.values():
        yield from members[name].sources


def _licences(members: Sequence[Member]) -> list[str]:
    found: dict[tuple[str, str, str], set[str]] = {}
    for member in members:
        for source in member.sources:
            found.setdefault((source.title, source.licence, source.citation), set()).add(member.name)
    return [
        f"- {title}: **{licence or 'not stated'}**. {f'{citation} ' if citation else ''}"
        f"({', '.join(f'`{name}`' for name in sorted(names))})"
        for (title, licence, citation), names in sorted(found.items())
    ]


def _section(member: Member) -> list[str]:
    config, result = member.config, member.result
    best = str(config.get("best_metric") or "")
    averaged = ", moving average of the weights" if config.get("ema") else ""
    chosen = f"the best by `{best}`" if best else "the last"
    lines = [
        f"## `{member.name}`",
        "",
        f"{_KINDS[config.task].capitalize()}; it predicts {_answers(member)}. {_parameters(member)} parameters"
        f"{'' if not member.encoders else ' besides its encoders'}; step {result['evaluated_step']} of {config.steps}, "
        f"{chosen}{averaged}; seed {config.seed}; fingerprint of the weights `{member.fingerprint}`."
        + "".join(f" Its {modality} encoder is `{name}`." for modality, name in member.encoders.items()),
    ]
    if member.detector:
        lines.append(
            f"It finds faces with `{member.detector.name}`, which is in the archive under its publisher's licence."
        )
    lines += ["", f"Network: {_settings(config.model)}. Every setting is in `{member.name}/config.json`.", ""]
    lines += ["| learned from | as | licence | records | fingerprint |", "|---|---|---|---|---|"]
    for source in member.sources:
        role = f"{source.role} of its {source.via}" if source.via else source.role
        lines.append(
            f"| {source.title} | {role} | {source.licence or 'not stated'} | {source.size or 'not recorded'} "
            f"| `{source.fingerprint}` |"
        )
    scores = ["Scored only together with the fusion that it was fine-tuned with."]
    if "calibrated_encoders" in result:
        scores = ["Its encoders were calibrated after it was made, so these scores would not be those of the release."]
        if any(member.config.model.fusion_args.get(f"{m}_prior") for m in member.encoders):
            scores = ["It takes back what their calibration left of the classes' shares in training.", *scores]
    if "calibration" in result:
        lines += _calibration(result["calibration"])
    if result["metrics"]:
        scores = _metrics(result["metrics"], best.partition("/")[0])
    return [*lines, "", *scores, "", _environment(result)]


def _calibration(found: dict[str, Any]) -> list[str]:
    return [
        "",
        f"Calibrated on {found['examples']} examples of {found['split']}, which is folded into its last layer: "
        f"temperature {found['temperature']:.3f}; {found['prior_share']:.0%} of the classes' shares in training are "
        "taken back.",
    ]


def _settings(model: Any) -> str:
    items = []
    for name, value in sorted(model.items()):
        if value not in ("", None) and name != "init_from":
            shown = ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if hasattr(value, "items") else value
            items.append(f"{name} {shown}" if shown != "" else name)
    return "; ".join(items)


def _metrics(metrics: dict[str, dict[str, Any]], chooser: str) -> list[str]:
    splits = sorted(metrics)
    heads = [f"{split} (chose the checkpoint)" if split == chooser else split for split in splits]
    lines = [f"| score | {' | '.join(heads)} |", f"|---|{'---|' * len(splits)}"]
    for name in dict.fromkeys(name for split in splits for name in metrics[split]):
        values = [metrics[split].get(name) for split in splits]
        lines.append(f"| {name} | {' | '.join('' if v is None else f'{v:.4f}' for v in values)} |")
    return lines


def _environment(result: dict[str, Any]) -> str:
    made = result.get("environment") or {}
    versions = ", ".join(f"{name} {made[name]}" for name in ("jax", "flax", "optax", "numpy", "python") if name in made)
    where = f" on {made['device_kind']} (devices: {made['devices']})" if "devices" in made else ""
    return f"Trained{where} by avemo {made.get('avemo', '?')} ({versions or 'versions not recorded'})."
