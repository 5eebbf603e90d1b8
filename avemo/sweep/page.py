"""A sweep as one HTML page that opens from disk: figures inlined, a table that sorts, the command of every row."""

import base64
import importlib.resources
from collections.abc import Callable, Sequence
from html import escape

from etils import epath

from avemo.sweep.summary import SettingResult

_CAPTIONS = {
    "forest": "Score of every setting with its interval over recordings; the dashed line is the reference.",
    "parameters": "Score against the number of trained parameters.",
    "recordings": "Every recording under each setting against the reference: above the line the setting is better.",
}


def render(
    title: str,
    columns: Sequence[tuple[str, Callable[[SettingResult], str]]],
    results: Sequence[SettingResult],
    notes: Sequence[str],
    pictures: Sequence[epath.Path],
    spec: str,
) -> str:
    """The page's text; it needs no network and no other file, but links the run folders beside it."""
    resources = importlib.resources.files(__package__)
    style, script = ((resources / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name, _ in columns)
    return "\n".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width, initial-scale=1'>",
            f"<title>{escape(title)}</title><style>\n{style}</style>",
            f"<h1>{escape(title)}</h1>",
            f"<p><code>python launch.py sweep --config={escape(spec)} --workdir=DIR</code></p>",
            f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>",
            *(_row(result, columns) for result in results),
            "</tbody></table></div>",
            *_failures(results),
            "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>",
            "<h2>Figures</h2><div class=figures>" if pictures else "<div>",
            *(_picture(path) for path in pictures),
            "</div>",
            "<h2>Commands</h2><p>To run the first seed of a row alone:</p>",
            *(f"<p>{escape(result.name)}</p><pre>{escape(result.command)}</pre>" for result in results),
            f"<script>\n{script}</script></html>\n",
        )
    )


def _row(result: SettingResult, columns: Sequence[tuple[str, Callable[[SettingResult], str]]]) -> str:
    kind = "reference" if result.reference else "failed" if result.error and not result.seeds else ""
    cells = [escape(show(result)) for _, show in columns]
    if result.folders:
        cells[0] = f"<a href='{escape(result.folders[0])}'>{cells[0]}</a>"
    return f"<tr class='{kind}'>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _failures(results: Sequence[SettingResult]) -> list[str]:
    failed = [f"<li><b>{escape(r.name)}</b> failed: {escape(r.error)}</li>" for r in results if r.error]
    return [f"<ul>{''.join(failed)}</ul>"] if failed else []


def _picture(path: epath.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = escape(_CAPTIONS[path.stem])
    return (
        f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'><figcaption>{caption}</figcaption></figure>"
    )
