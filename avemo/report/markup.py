"""HTML from text and numbers: escaping, number formats, tables, and the names that a reader sees."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

_METRICS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "uar": "UAR (mean recall)",
    "macro_f1": "macro-F1",
    "ece": "calibration error (ECE)",
    "teacher_accuracy": "teacher accuracy",
    "agreement": "agreement with the teacher",
    "triplet_accuracy": "triplet accuracy",
    "gradient_norm": "gradient norm",
    "examples_per_second": "examples per second",
    "ce_loss": "cross-entropy",
    "fec_loss": "triplet loss",
    "kd_loss": "distillation (logits)",
    "embedding_loss": "distillation (embedding)",
    "rkd_loss": "distillation (relations)",
}
# The order of metrics in a table, by the first pattern that matches.
_RANKS = (
    "ccc_mean",
    "ccc_(?!recording)",
    "ccc_recording_mean",
    "ccc",
    "accuracy",
    "uar",
    "macro_f1",
    "triplet",
    "teacher",
    "agreement",
    "pearson",
    "rmse",
    "ece",
)
_STEMS = {
    "ccc_recording": "CCC {}, mean of recordings",
    "ccc": "CCC {}",
    "rmse": "RMSE {}",
    "pearson": "Pearson r {}",
    "triplet_accuracy": "triplet accuracy, {}",
}
_PERCENT = re.compile(r"accuracy|uar|agreement|macro_f1")


def escape(value: Any) -> str:
    """Text safe between tags and inside double quotes."""
    return html.escape(str(value), quote=True)


def tag(name: str, content: str = "", **attributes: Any) -> str:
    """An element; `content` is HTML.

    Attribute values are escaped; an attribute of None is left out. `class_` means `class`, and `_` in a name means `-`.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def number(value: Any, digits: int = 3) -> str:
    """A number with a true minus sign; an en dash for null, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ABSENT
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size and size < 10**-digits:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def percent(value: Any) -> str:
    """A share as a percentage with one decimal."""
    text = number(100 * value if isinstance(value, int | float) else value, 1)
    return text if text == ABSENT else f"{text}\N{NO-BREAK SPACE}%"


def metric(name: str, value: Any) -> str:
    """The value of a metric: a share as a percentage, any other with three decimals."""
    return percent(value) if _PERCENT.search(name) else number(value)


def duration(seconds: Any) -> str:
    """Seconds as `8.4 s`, `3 min 20 s` or `2 h 05 min`."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: Any) -> str:
    """A large count in short form, `15.6 M`."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ABSENT
    for unit, size, least in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if value >= least:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def tick_label(value: float) -> str:
    """A tick without needless zeros."""
    return f"{value:,.10g}".replace("-", MINUS)


def metric_label(name: str) -> str:
    """The readable name of a metric of `avemo.metrics`; an unknown name is shown as it is, with spaces."""
    if name in _METRICS:
        return _METRICS[name]
    for stem, label in _STEMS.items():
        if name.startswith(f"{stem}_"):
            rest = name.removeprefix(f"{stem}_").replace("_", " ")
            return label.format(rest)
    return name.replace("_", " ")


def metric_rank(name: str) -> tuple[int, str]:
    """Sorts metrics: those that a run is judged by come first."""
    rank = next((i for i, pattern in enumerate(_RANKS) if re.match(pattern, name)), len(_RANKS))
    return rank, name.replace("valence", "a_")  # valence before arousal, everywhere


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    class_: str = "",
    hidden_caption: bool = False,
) -> str:
    """A table of HTML cells with a caption; the first cell of a row is its header. It scrolls sideways if too wide."""
    head = "".join(tag("th", column, scope="col") for column in columns)
    body = "".join(
        "<tr>" + tag("th", row[0], scope="row") + "".join(tag("td", cell) for cell in row[1:]) + "</tr>" for row in rows
    )
    text = tag("caption", caption, class_="unseen" if hidden_caption else None)
    inner = f"{text}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return tag(
        "div",
        tag("table", inner, class_=class_ or None),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=html.unescape(re.sub(r"<[^>]*>", "", caption)),
    )


def details(summary: str, content: str) -> str:
    """A collapsed block."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """A list of terms and their values (HTML)."""
    return tag("dl", "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in items), class_="facts")
