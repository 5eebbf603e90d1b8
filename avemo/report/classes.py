"""The section of emotions as classes: confusion matrices and calibration of every run that predicts them."""

from collections.abc import Sequence

import numpy as np

from avemo import metrics
from avemo.evaluation import estimates
from avemo.report import charts, markup
from avemo.report.charts import Series
from avemo.report.markup import escape, tag
from avemo.runs.reader import Run


def section(runs: Sequence[Run]) -> str:
    """The whole section, or "" where no run predicts classes."""
    cards = [card for run in runs for card in [_card(run)] if card]
    if not cards:
        return ""
    return tag(
        "section",
        "<h2>Emotions: what is taken for what</h2>"
        "<p>Each row is one true class and adds up to 100&nbsp;%: the large figure is the share in per cent, the small "
        "one the number of items.</p>"
        f'<div class="pair">{"".join(cards)}</div>',
        id="classes",
    )


def _card(run: Run) -> str:
    split = next((s for s in run.splits if run.classes(s) is not None), None)
    if split is None:
        return ""
    label, probability, groups = run.classes(split)
    counts = metrics.confusion(label, probability.argmax(-1), probability.shape[1]).astype(int)
    names = run.class_names
    names = names if len(names) == len(counts) else [f"{i}" for i in range(len(counts))]
    values = estimates.of_classes(label, probability, groups)

    def text(name: str) -> str:
        e = values["", name]
        spread = "" if e.low != e.low else f" <small>[{100 * e.low:.1f}, {100 * e.high:.1f}]</small>"
        return markup.percent(e.value) + spread

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
        + charts.confusion(counts, names, f"Confusion of {escape(run.name)} on {escape(split)}")
        + _calibration(bins),
        class_="card",
    )


def _calibration(bins: np.ndarray) -> str:
    """Accuracy against confidence of the bins that are not empty; `bins` as from `metrics.calibration`."""
    count, confidence, correct = bins[bins[:, 0] > 0].T
    ideal = Series("perfectly calibrated", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "s-ideal")
    model = Series("model", confidence / count, correct / count, "s-both", dots=True)
    return charts.plot(
        [ideal, model],
        title="Calibration",
        x_label="confidence of the answer (15 bins)",
        y_label="share that is right",
        y_range=(0.0, 1.0),
        x_range=(0.0, 1.0),
        class_="low",
    )
