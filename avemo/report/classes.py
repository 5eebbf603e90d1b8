"""The section on emotion classes: confusion matrix and calibration of every run that predicts them."""

from collections.abc import Sequence

import numpy as np

from avemo import metrics
from avemo.evaluation import estimates
from avemo.report import charts, markup
from avemo.report.charts import Series
from avemo.report.markup import ABSENT, escape, tag
from avemo.runs.reader import Run


def section(runs: Sequence[Run]) -> str:
    """The whole section, or "" if no run predicts classes."""
    cards = [card for run in runs if (card := _card(run))]
    if not cards:
        return ""
    return tag(
        "section",
        "<h2>Emotions: which are confused</h2>"
        "<p>Each row is one true class and adds up to 100&nbsp;%. The large figure is the share in per cent, the small "
        "one the number of items.</p>"
        f'<div class="pair">{"".join(cards)}</div>',
        id="classes",
    )


def _card(run: Run) -> str:
    labelled = next(((split, found) for split in run.splits if (found := run.classes(split)) is not None), None)
    if labelled is None:
        return ""
    split, (label, probability, groups) = labelled
    counts = metrics.confusion(label, probability.argmax(-1), probability.shape[1]).astype(int)
    names = run.class_names if len(run.class_names) == len(counts) else [str(i) for i in range(len(counts))]
    values = estimates.of_classes(label, probability, groups)

    def text(name: str) -> str:
        e = values["", name]
        interval = "" if np.isnan(e.low) else f" <small>[{100 * e.low:.1f}, {100 * e.high:.1f}]</small>"
        return markup.percent(e.value) + interval

    bins = metrics.calibration(label, probability)
    return tag(
        "article",
        f"<h3>{escape(run.name)} <small>{escape(split)}, {len(label):,} items</small></h3>"
        + markup.definitions(
            [
                ("accuracy", text("accuracy")),
                ("UAR", text("uar")),
                ("macro-F1", text("macro_f1")),
                ("largest class", markup.percent(float(counts.sum(1).max() / counts.sum()))),
                ("ECE", markup.percent(metrics.expected_calibration_error(bins))),
            ]
        )
        + _confusion(counts, names, f"Confusion of {escape(run.name)} on {escape(split)}")
        + _calibration(bins),
        class_="card",
    )


def _confusion(counts: np.ndarray, names: Sequence[str], caption: str) -> str:
    """Confusion counts `[C, C]` as a table: share of each true class (row), count beneath, shaded by share."""
    head = "".join(f'<th scope="col"><abbr title="{escape(n)}">{escape(n[:3])}</abbr></th>' for n in names)
    body = []
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = int(row.sum())
        cells = [_cell(name, other, int(n), total, i == j) for j, (other, n) in enumerate(zip(names, row, strict=True))]
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix"><table class="confusion">'
        f'<caption>{caption}</caption><thead><tr><th scope="col">true \\ predicted</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(true: str, predicted: str, count: int, total: int, hit: bool) -> str:
    share = count / max(total, 1)
    if count:
        text = f"{100 * share:.0f}<small>{count}</small>"
    else:
        text = '<span class="soft">0</span>' if total else ABSENT
    classes = "cell" + (" hit" if hit else "") + (" deep" if share > 0.8 else "")
    return (
        f'<td class="{classes}" style="--share:{share:.2f}" '
        f'title="{escape(true)} predicted as {escape(predicted)}: {count} of {total}">{text}</td>'
    )


def _calibration(bins: np.ndarray) -> str:
    """Accuracy against confidence of the bins that are not empty; `bins` is from `metrics.calibration`."""
    count, confidence, correct = bins[bins[:, 0] > 0].T
    ideal = Series("perfectly calibrated", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "s-ideal")
    model = Series("model", confidence / count, correct / count, "s-both", dots=True)
    return charts.plot(
        [ideal, model],
        title="Calibration",
        x_label="confidence of the prediction (15 bins)",
        y_label="share correct",
        y_range=(0.0, 1.0),
        x_range=(0.0, 1.0),
        class_="low",
    )
