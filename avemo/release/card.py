"""The model card of a release: every name and figure in it is read from the runs themselves."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from avemo.version import __version__

if TYPE_CHECKING:
    from avemo.release.pack import Member

_KINDS = {
    "teacher": "facial expression from a face",
    "student": "facial expression from a face, distilled from a teacher",
    "audio": "emotion from the voice",
    "audiovisual": "emotion from face and voice over time",
}
_USE = """\
## Intended use

Research and teaching on how displayed emotion can be read from faces and voices; trying this software on recordings
whose people agreed to it; a start for training on data of one's own.

Not for decisions about people (work, school, health, insurance, police, borders), not for watching people who did not
agree, not for telling who somebody is.

## Limits

- A run says which expression raters would have named, or how they would have rated it: not what a person feels.
- The scores below hold for the splits that they name. Other cameras, rooms, languages, ages, and emotion that is not
  acted where the data are acted, are not measured; nor are scores by sex, age or skin colour.
- Where a split's column is marked, the checkpoint was chosen on that split: its scores are too good by that choice.
- Probabilities are not calibrated for other data; `ece` says how well they are for these.
"""


def write(members: "Sequence[Member]", filename: str) -> str:
    """The text of `MODEL_CARD.md`.

    Args:
      members: the runs, sorted by name.
      filename: the archive's name, for the commands that use it.
    """
    lines = [
        "# Model card",
        "",
        f"Trained runs of avemo {__version__} (audio-visual emotion recognition, after arXiv 2103.09154).",
        "",
        "| run | what it says | parameters | weights | commercial use |",
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
        "The code is under Apache-2.0. The weights were learnt from what is listed here, and its conditions bound what",
        "they may be used for. No data are in this archive.",
        "",
    ]
    lines += _licences(members)
    for member in members:
        lines += ["", *_section(member)]
    return "\n".join(lines) + "\n"


def _answers(member: "Member") -> str:
    names = member.result.get("class_names") or []
    count = int(member.config.model.get("num_classes") or 0)
    if not count:
        return "valence and arousal"
    return ", ".join(names) if len(names) == count else f"{count} classes"


def _parameters(member: "Member") -> str:
    return f"{member.result['parameters']:,}" if "parameters" in member.result else "not recorded"


def _all_sources(member: "Member", members: "dict[str, Member]") -> Iterator[Any]:
    yield from member.sources
    for name in member.encoders.values():
        yield from members[name].sources


def _licences(members: "Sequence[Member]") -> list[str]:
    found: dict[tuple[str, str, str], set[str]] = {}
    for member in members:
        for source in member.sources:
            found.setdefault((source.title, source.licence, source.citation), set()).add(member.name)
    return [
        f"- {title}: **{licence or 'not stated'}**. {f'{citation} ' if citation else ''}"
        f"({', '.join(f'`{name}`' for name in sorted(names))})"
        for (title, licence, citation), names in sorted(found.items())
    ]


def _section(member: "Member") -> list[str]:
    config, result = member.config, member.result
    best = str(config.get("best_metric") or "")
    averaged = ", moving average of the weights" if config.get("ema") else ""
    chosen = f"the best by `{best}`" if best else "the last"
    lines = [
        f"## `{member.name}`",
        "",
        f"{_KINDS[config.task].capitalize()}; it says {_answers(member)}. {_parameters(member)} parameters"
        f"{'' if not member.encoders else ' beside its encoders'}; step {result['evaluated_step']} of {config.steps}, "
        f"{chosen}{averaged}; seed {config.seed}; fingerprint of the weights `{member.fingerprint}`."
        + "".join(f" Its {modality} encoder is `{name}`." for modality, name in member.encoders.items()),
    ]
    if member.detector:
        lines.append(
            f"It finds faces by `{member.detector.name}`, which is here too; its licence is that of its publisher."
        )
    lines += ["", f"Network: {_settings(config.model)}. Every setting is in `{member.name}/config.json`.", ""]
    lines += ["| learnt from | as | licence | records | fingerprint |", "|---|---|---|---|---|"]
    for source in member.sources:
        role = f"{source.role} of its {source.via}" if source.via else source.role
        lines.append(
            f"| {source.title} | {role} | {source.licence or 'not stated'} | {source.size or 'not recorded'} "
            f"| `{source.fingerprint}` |"
        )
    scores = ["Scored only with the fusion that it was fine-tuned with."]
    if result["metrics"]:
        scores = _metrics(result["metrics"], best.partition("/")[0])
    return [*lines, "", *scores, "", _environment(result)]


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
