"""The section that matters most: audio only, visual only, and both."""

import math
from collections.abc import Mapping, Sequence

from avemo.evaluation import estimates
from avemo.evaluation.estimates import Estimate
from avemo.report import forest, markup
from avemo.report.markup import escape, tag
from avemo.report.notes import Notes
from avemo.runs.reader import MODALITIES, Run, split_rank

NAMES = {"audio": "audio only", "visual": "visual only", "both": "audio + visual"}
CONVENTIONS = {
    "concatenated": "CCC over all frames of all recordings (concatenated)",
    "per_recording": "CCC of each recording, averaged",
    "": "Emotion of the whole clip",
}
CLASS_COLUMNS = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}
CEILINGS = {
    "gold_vs_latent": "ceiling: gold against the hidden truth",
    "gold_vs_latent_uncompensated": "same, without removing the raters’ delay",  # noqa: RUF001
    "leave_one_rater_out": "one rater against the others",
}
Scores = Mapping[tuple[str, str], Estimate]  # by (convention, column)
Scored = list[tuple[Run, Scores]]


def score(run: Run, split: str) -> Scores:
    """Scores of a run's saved predictions of one split; empty if it has none."""
    if split not in run.splits:
        return {}
    labelled = run.classes(split)
    if labelled is not None:
        return estimates.of_classes(*labelled)
    return estimates.of_traces(run.traces(split))


def run_name(run: Run, runs: Sequence[Run]) -> str:
    """HTML name of a fusion run: its modality, and its folder if several runs share one."""
    label = NAMES[run.modality or "both"]
    several = sum(r.modality == run.modality for r in runs) > 1
    return f"{label} <small>({escape(run.name)})</small>" if several else label


def fusion_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs to compare: audio, visual, then both."""
    return [run for modality in MODALITIES for run in runs if run.modality == modality]


def section(runs: Sequence[Run], notes: Notes) -> str:
    """The whole section, or "" if no fusion run has predictions."""
    compared = [run for run in fusion_runs(runs) if run.splits]
    by_split = []
    for split in sorted({split for run in compared for split in run.splits}, key=split_rank):
        found = [(run, values) for run in compared if (values := score(run, split))]
        if found:
            by_split.append(_split(split, found, notes))
    if not by_split:
        return ""
    content = "".join(by_split)
    return tag(
        "section",
        "<h2>Audio, visual, both</h2>"
        "<p>The same recipe three times: with sound only, with the face only, and with the two fused. "
        "Brackets are 95 % intervals over resampled recordings; the best of each column is in bold.</p>"
        + content
        + "".join(f'<p class="note">{escape(line)}</p>' for line in _unscored(compared))
        + '<p class="note">Checkpoints were chosen by their dev score, so dev scores are slightly optimistic.'
        + (" All CCCs use biased (1/n) moments." if "CCC" in content else "")
        + "</p>",
        id="modalities",
    )


def _unscored(runs: Sequence[Run]) -> list[str]:
    """A sentence for each split that runs could not be scored on, and why."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for missing in run.unscored.items():
            by_reason.setdefault(missing, []).append(run.name)
    return [f"Not scored on {split} ({', '.join(names)}): {reason}" for (split, reason), names in by_reason.items()]


def _split(split: str, found: Scored, notes: Notes) -> str:
    """Forest plot, tables and gain of one split."""
    keys = list(found[0][1])
    conventions = list(dict.fromkeys(convention for convention, _ in keys))
    headline = conventions[0]
    columns = [column for convention, column in keys if convention == headline]
    found = [(run, values) for run, values in found if set(keys) <= set(values)]
    tables = "".join(_table(split, convention, columns, found, notes) for convention in conventions)
    return (
        f"<h3>Split: {escape(split)}</h3>{_forest(headline, columns, found, notes)}"
        f'<div class="tables">{tables}</div>{_gain(found, headline, columns)}'
    )


def _forest(convention: str, columns: Sequence[str], found: Scored, notes: Notes) -> str:
    compared = [run for run, _ in found]
    groups = []
    for column in columns:
        dots = []
        for run, values in found:
            e = values[convention, column]
            dots.append(forest.Dot(run_name(run, compared), f"s-{run.modality}", e.value, e.low, e.high))
        groups.append((CLASS_COLUMNS.get(column, column), dots))
    classes = convention == ""
    return forest.plot(
        groups,
        title=CONVENTIONS[convention],
        x_label="score (%)" if classes else "CCC (1 is perfect agreement)",
        reference={} if classes else _with_mean(notes.ceiling.get("gold_vs_latent", {})),
        reference_label="ceiling set by rater noise",
        percentages=classes,
    )


def _with_mean(ceiling: Mapping[str, float]) -> dict[str, float]:
    """A ceiling with its mean over the two dimensions, if it has both."""
    return {**ceiling, "mean": sum(ceiling.values()) / 2} if len(ceiling) == 2 else dict(ceiling)


def _table(split: str, convention: str, columns: Sequence[str], found: Scored, notes: Notes) -> str:
    show = markup.percent if convention == "" else markup.number
    compared = [run for run, _ in found]
    best = {column: show(_best(found, convention, column)) for column in columns}
    rows = []
    for run, scores in found:
        cells = [run_name(run, compared)]
        for column in columns:
            e = scores[convention, column]
            text = show(e.value)
            text = tag("strong", text) if len(found) > 1 and text == best[column] else text
            interval = _interval(e, convention == "")
            cells.append(text + (f"<small>{interval}</small>" if interval else ""))
        rows.append(cells)
    if convention == "concatenated":
        for reference, ceiling in notes.ceiling.items():
            label = tag("span", escape(CEILINGS.get(reference, reference.replace("_", " "))), class_="soft")
            rows.append([label, *(show(_with_mean(ceiling).get(column)) for column in columns)])
    head = ["model", *(CLASS_COLUMNS.get(c, c) for c in columns)]
    return markup.table(f"{CONVENTIONS[convention]}; {escape(split)}", head, rows, class_="scores")


def _best(found: Scored, convention: str, column: str) -> float:
    values = [scores[convention, column].value for _, scores in found]
    return max(values, key=lambda v: -math.inf if math.isnan(v) else v)


def _interval(e: Estimate, as_percent: bool) -> str:
    if math.isnan(e.low):  # too few recordings
        return ""
    low, high = (markup.number(100 * v, 1) if as_percent else markup.number(v, 2) for v in (e.low, e.high))
    return f"[{low}, {high}]"


def _gain(found: Scored, headline: str, columns: Sequence[str]) -> str:
    """A sentence: what fusion adds to the better single modality, with a paired interval."""
    column, name = ("mean", "mean CCC") if "mean" in columns else ("uar", "UAR")
    fused = [scores[headline, column] for run, scores in found if run.modality == "both"]
    single = [(run, scores[headline, column]) for run, scores in found if run.modality != "both"]
    if not fused or not single:
        return ""
    run, better = max(single, key=lambda item: item[1].value)
    gain = estimates.difference(fused[0], better)
    if math.isnan(gain.value):
        return ""
    text = markup.number(gain.value) if column == "mean" else f"{markup.number(100 * gain.value, 1)} points"
    text = f"+{text}" if gain.value >= 0 else text
    interval = _interval(gain, column == "uar")
    paired = f" {interval}, paired over the same recordings" if interval else ""
    return (
        f"<p>Fusion changes {name} by <strong>{text}</strong>{paired}, compared with {NAMES[run.modality or 'both']}, "
        "the better of the two single modalities.</p>"
    )
