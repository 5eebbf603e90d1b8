"""The section that the project is judged by: audio alone, visual alone, both."""

from collections.abc import Sequence

from avemo.evaluation import estimates
from avemo.evaluation.estimates import Estimate
from avemo.report import charts, markup
from avemo.report.markup import escape, tag
from avemo.report.notes import Notes
from avemo.runs.reader import MODALITIES, Run

ROW_NAMES = {"audio": "audio only", "visual": "visual only", "both": "audio + visual"}
CONVENTIONS = {
    "concatenated": "CCC over all frames of all recordings (concatenated)",
    "per_recording": "CCC of each recording, averaged",
    "": "Emotion of the whole clip",
}
CLASS_COLUMNS = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}
CEILINGS = {
    "gold_vs_latent": "ceiling: gold against the hidden truth",
    "gold_vs_latent_uncompensated": "the same, raters' delay left in",
    "leave_one_rater_out": "one rater against the others",
}
Scores = dict[tuple[str, str], Estimate]


def score(run: Run, split: str) -> Scores:
    """Scores of a run's saved predictions of one split; empty where it has none."""
    if split not in run.splits:
        return {}
    labelled = run.classes(split)
    if labelled is not None:
        return estimates.of_classes(*labelled)
    return estimates.of_traces(run.traces(split))


def row_name(run: Run, runs: Sequence[Run]) -> str:
    """HTML name of a fusion run: its modality, and its folder where several share one."""
    label = ROW_NAMES[run.modality or "both"]
    several = sum(r.modality == run.modality for r in runs) > 1
    return f"{label} <small>({escape(run.name)})</small>" if several else label


def fusion_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs of the comparison: audio, visual, then both."""
    return sorted((r for r in runs if r.modality), key=lambda r: MODALITIES.index(r.modality))


def section(runs: Sequence[Run], notes: Notes) -> str:
    """The whole section, or "" where no fusion run has predictions."""
    compared = [r for r in fusion_runs(runs) if r.splits]
    if not compared:
        return ""
    splits = list(dict.fromkeys(split for run in compared for split in run.splits))
    splits.sort(key=lambda s: ({"dev": 0, "test": 1}.get(s, 2), s))
    parts = []
    for split in splits:
        found = [(run, score(run, split)) for run in compared]
        found = [(run, values) for run, values in found if values]
        if found:
            parts.append(_split(split, found, notes))
    if not parts:
        return ""
    return tag(
        "section",
        "<h2>Audio, visual, both</h2>"
        "<p>The same recipe three times: with sound only, with the face only, and with the two fused. "
        "Brackets are 95 % intervals over resampled recordings; the best of each column is in bold.</p>"
        + "".join(parts)
        + '<p class="note">The checkpoint that is scored was chosen on dev, so dev scores are slightly optimistic.'
        + (" CCC uses biased (1/n) moments throughout." if "CCC" in "".join(parts) else "")
        + "</p>",
        id="modalities",
    )


def _split(split: str, found: list[tuple[Run, Scores]], notes: Notes) -> str:
    keys = list(found[0][1])
    conventions = list(dict.fromkeys(convention for convention, _ in keys))
    headline = conventions[0]
    columns = [column for convention, column in keys if convention == headline]
    found = [(run, values) for run, values in found if set(keys) <= set(values)]
    compared = [run for run, _ in found]
    as_text = "percent" if headline == "" else "number"
    ceiling = notes.ceiling.get("gold_vs_latent", {}) if headline else {}
    if len(ceiling) == 2:
        ceiling = {**ceiling, "mean": sum(ceiling.values()) / 2}
    groups = [
        (
            CLASS_COLUMNS.get(column, column),
            [
                (row_name(run, compared), f"s-{run.modality}", e.value, e.low, e.high)
                for run, values in found
                for e in [values[headline, column]]
            ],
        )
        for column in columns
    ]
    chart = charts.intervals(
        groups,
        title=CONVENTIONS[headline],
        x_label="score (%)" if as_text == "percent" else "CCC (1 is perfect agreement)",
        reference=ceiling or None,
        reference_label="ceiling set by rater noise",
        as_text=as_text,
    )
    tables = "".join(_table(split, convention, columns, found, notes) for convention in conventions)
    return f'<h3>Split: {escape(split)}</h3>{chart}<div class="tables">{tables}</div>{_gain(found, headline, columns)}'


def _table(split: str, convention: str, columns: list[str], found: list[tuple[Run, Scores]], notes: Notes) -> str:
    write = markup.percent if convention == "" else markup.number
    best = {
        column: max((values[convention, column].value for _, values in found), key=lambda v: v if v == v else -2.0)
        for column in columns
    }
    rows = []
    for run, values in found:
        cells = [row_name(run, [r for r, _ in found])]
        for column in columns:
            e = values[convention, column]
            text = write(e.value)
            text = tag("strong", text) if len(found) > 1 and text == write(best[column]) else text
            cells.append(text + _interval(e, convention == ""))
        rows.append(cells)
    if convention == "concatenated":
        for reference, values in notes.ceiling.items():
            mean = sum(values.values()) / 2 if len(values) == 2 else None
            label = f'<span class="soft">{escape(CEILINGS.get(reference, reference.replace("_", " ")))}</span>'
            rows.append([label, *(write({**values, "mean": mean}.get(column)) for column in columns)])
    head = ["model", *(CLASS_COLUMNS.get(c, c) for c in columns)]
    return markup.table(f"{CONVENTIONS[convention]}; {escape(split)}", head, rows, class_="scores")


def _interval(e: Estimate, as_percent: bool) -> str:
    if e.low != e.low:  # NaN: too few recordings
        return ""
    low, high = (markup.number(100 * v, 1) if as_percent else markup.number(v, 2) for v in (e.low, e.high))
    return f"<small>[{low}, {high}]</small>"


def _gain(found: list[tuple[Run, Scores]], headline: str, columns: list[str]) -> str:
    """A sentence: what fusing adds over the better single modality, with a paired interval."""
    column = "mean" if "mean" in columns else "uar"
    both = [values for run, values in found if run.modality == "both"]
    single = [(run, values) for run, values in found if run.modality != "both"]
    if not both or not single:
        return ""
    run, better = max(single, key=lambda item: item[1][headline, column].value)
    gain = estimates.difference(both[0][headline, column], better[headline, column])
    if gain.value != gain.value:
        return ""
    name = "mean CCC" if column == "mean" else "UAR"
    sign = "+" if gain.value >= 0 else ""
    text = (
        f"{sign}{markup.number(gain.value)}"
        if column == "mean"
        else f"{sign}{markup.number(100 * gain.value, 1)} points"
    )
    interval = _interval(gain, column == "uar").replace("<small>", " ").replace("</small>", "")
    paired = f"{interval}, paired over the same recordings" if interval else ""
    return (
        f"<p>Fusing changes {name} by <strong>{text}</strong>{paired}, against {ROW_NAMES[run.modality or 'both']}, "
        "the better of the two alone.</p>"
    )
