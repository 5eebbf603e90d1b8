"""`card.html`: the data set card as one HTML file that opens from disk."""

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.card.counts import CELLS

SAMPLES = 24

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1d2433; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: right; font-weight: normal }
.words td, td:first-child, th:first-child { text-align: left } th { color: #667 ; border-bottom: 1px solid #ccd }
.faces { display: flex; flex-wrap: wrap; gap: 6px } figure { margin: 0; width: 96px }
figure img { width: 96px; height: 96px; object-fit: cover; background: #000 }
figure.plane { width: auto; margin-right: 1.5rem }
figcaption { font-size: 11px; line-height: 1.2; color: #556; overflow-wrap: anywhere }
.quiet { color: #667 } code { background: #f2f4f8; padding: 0 .2em }
svg text { font: 11px system-ui, sans-serif; fill: #667 }
"""


def _without_folders(value: Any) -> Any:
    """An argument as others may see it: of an absolute path its last name."""
    return pathlib.PurePath(value).name if isinstance(value, str) and pathlib.PurePath(value).is_absolute() else value


def sample_images(kind: str, raw: Mapping[str, Any], names: Sequence[str], position: int) -> list[tuple[bytes, str]]:
    """Returns (JPEG bytes, caption) pairs of one parsed, undecoded record; `position` varies the frame of a clip."""

    def text(value: Any) -> str:
        return (value if isinstance(value, bytes) else bytes(np.asarray(value, object).item())).decode()

    def name_of(label: Any) -> str:
        number = int(np.asarray(label).item())
        return names[number] if 0 <= number < len(names) else "unlabelled"

    if kind == "faces":
        return [(bytes(np.asarray(raw["image"], object).item()), f"{name_of(raw['label'])} · {text(raw['name'])}")]
    if kind == "triplets":
        odd = int(np.asarray(raw["odd"]).item())
        images = np.asarray(raw["images"], object)
        return [(bytes(image), "odd one out" if i == odd else "similar pair") for i, image in enumerate(images)]
    mask, frames = np.atleast_1d(raw["face_mask"]).astype(bool), np.atleast_1d(np.asarray(raw["frames"], object))
    seen = np.flatnonzero(mask)
    chosen = int(seen[position * 37 % len(seen)]) if len(seen) else 0
    time = float(np.atleast_1d(raw["time"])[chosen])
    return [(bytes(frames[chosen]), f"{name_of(raw['label'])} · {text(raw['recording'])} at {time:.1f} s")]


def _plane(plane: Sequence[Sequence[int]]) -> str:
    """Draws the density of valence (right) and arousal (up) as SVG; darker means more, on a square-root scale."""
    counts = np.asarray(plane, np.float64)
    shade = np.sqrt(counts / max(counts.max(), 1))
    cell, side = 11, 11 * CELLS
    squares = "".join(
        f'<rect x="{x * cell}" y="{(CELLS - 1 - y) * cell}" width="{cell}" height="{cell}" fill="#2456a6" '
        f'fill-opacity="{shade[y, x]:.3f}"><title>{int(counts[y, x])}</title></rect>'
        for y in range(CELLS)
        for x in range(CELLS)
        if counts[y, x]
    )
    axes = f'<path d="M{side / 2} 0V{side}M0 {side / 2}H{side}" stroke="#99a" stroke-dasharray="2 3"/>'
    frame = f'<rect width="{side}" height="{side}" fill="none" stroke="#99a"/>'
    words = (
        f'<text x="{side / 2}" y="{side + 14}" text-anchor="middle">valence, &minus;1 to 1</text>'
        f'<text x="-{side / 2}" y="-6" text-anchor="middle" transform="rotate(-90)">arousal, &minus;1 to 1</text>'
    )
    size = f'width="{side + 24}" height="{side + 22}" viewBox="-20 -2 {side + 24} {side + 22}"'
    return f"<svg {size}>{squares}{axes}{frame}{words}</svg>"


def _table(rows: Sequence[Sequence[Any]], header: Sequence[str], kind: str = "numbers") -> str:
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape('' if cell is None else str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table class={kind}><tr>{head}</tr>{body}</table>"


def _media_type(data: bytes) -> str:
    return "image/webp" if data[:4] == b"RIFF" else "image/jpeg"


def _figures(pictures: Sequence[tuple[bytes, str]]) -> str:
    return "".join(
        f'<figure><img alt="" src="data:{_media_type(data)};base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for data, caption in pictures
    )


def _streams(streams: Sequence[Mapping[str, Any]]) -> str:
    rows = [[stream[key] for key in ("name", "modality", "dim", "source")] for stream in streams]
    return "<h2>Streams</h2>" + _table(rows, ["name", "modality", "dimension", "tables"], "words")


def page(card: Mapping[str, Any], samples: Sequence[tuple[bytes, str]]) -> str:
    """Returns the card as one HTML page.

    Args:
      card: the contents of `card.json`.
      samples: JPEG bytes and captions of sample images.
    """
    splits = {name: card["splits"][name] for name in ("train", "dev", "test") if name in card["splits"]}
    quantities: list[str] = []
    for split in splits.values():
        for key in (
            *split["counts"],
            *(k for k in split if k not in ("counts", "labels", "plane", "sound", "annotation")),
        ):
            if key not in quantities:
                quantities.append(key)
    table = [
        [key.replace("_", " "), *(split["counts"].get(key, split.get(key)) for split in splits.values())]
        for key in quantities
    ]
    table = [row for row in table if any(cell is not None for cell in row[1:])]  # unknown numbers of subjects
    labels = [name for name in [*card["classes"], "unlabelled"] if any(name in s["labels"] for s in splits.values())]
    classes = [[name, *(split["labels"].get(name, 0) for split in splits.values())] for name in labels]
    planes = "".join(
        f"<figure class=plane><figcaption>{html.escape(name)}</figcaption>{_plane(split['plane'])}</figure>"
        for name, split in splits.items()
        if split["plane"]
    )
    flagged = [
        [name, flag, found["recordings"], ", ".join(found["first"])]
        for name, split in splits.items()
        for flag, found in (split.get("sound", {}) | split.get("annotation", {})).items()
    ]
    notes = "".join(f"<li>{html.escape(note)}" for note in card.get("notes", ()))
    left_out = [[reason, count] for reason, count in card["items_left_out"].items()]
    skipped = [[one["item"], one["split"], one["reason"]] for one in card["skipped"]]
    arguments = [[key, _without_folders(value)] for key, value in card["arguments"].items()]
    sections = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{html.escape(card['corpus'])}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(card['title'])}</h1>",
        f"<p class=quiet>{html.escape(card['kind'])} · schema {html.escape(card['schema'])} · source "
        f"<code>{html.escape(card['source_fingerprint'])}</code><br>"
        f"Licence: {html.escape(card['licence'] or 'not stated')}<br>{html.escape(card['citation'])}</p>",
        "<h2>Splits</h2>" + _table(table, ["", *splits]),
        _streams(card["streams"]) if card.get("streams") else "",
        "<h2>Triplet types</h2>" if card["kind"] == "triplets" else "<h2>Classes</h2>",
        _table(classes, ["", *splits]) if labels != ["unlabelled"] else "<p class=quiet>no class labels</p>",
        f"<h2>Valence and arousal</h2><div class=faces>{planes}</div>" if planes else "",
        f"<h2>Samples</h2><div class=faces>{_figures(samples)}</div>" if samples else "",
        f"<h2>Sound and annotation to check</h2>{_table(flagged, ['split', 'flag', 'recordings', 'first'], 'words')}"
        if flagged
        else "",
        f"<h2>How the source was understood</h2><ul>{notes}</ul>" if notes else "",
        f"<h2>Left out by the corpus's rules</h2>{_table(left_out, ['reason', 'items'])}" if left_out else "",
        f"<h2>Skipped: {card['items_skipped']} of {card['items']} items</h2>",
        _table(skipped, ["item", "split", "reason"], "words") if skipped else "<p class=quiet>none</p>",
        "<h2>Arguments</h2>" + _table(arguments, ["", ""], "words"),
        "</html>\n",
    ]
    return "\n".join(section for section in sections if section)
