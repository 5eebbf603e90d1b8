"""A sweep as one HTML page that opens from disk: figures inlined, a table that sorts, the command of every row."""

import base64
import html
from collections.abc import Callable, Sequence

from etils import epath

from avemo.sweep.summary import Row

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --muted: #59636e; --line: #d9dee3; --accent: #0b63b5; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 1500px; padding: 2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th { font-weight: 600; cursor: pointer; color: var(--muted); vertical-align: bottom; }
th:hover, th:focus { color: var(--accent); }
th[aria-sort]::after { content: " ▾"; } th[aria-sort=ascending]::after { content: " ▴"; }
tr.reference td { background: #eef5fc; font-weight: 600; } tr.failed td { color: #9a3412; }
tbody tr:last-child td { border-bottom: 0; }
a { color: var(--accent); } ul { padding-left: 1.2rem; color: var(--muted); } li { margin: .15rem 0; }
figure { margin: 0; } figcaption { color: var(--muted); font-size: 13px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1.6rem; }
img { max-width: 100%; height: auto; } code, pre { font: 12px/1.5 ui-monospace, monospace; }
pre { white-space: pre-wrap; word-break: break-all; background: #f6f8fa; padding: .6rem .8rem; border-radius: 6px; }
"""
_SCRIPT = """
for (const head of document.querySelectorAll('th')) {
  const sort = () => {
    const table = head.closest('table'), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute('aria-sort') !== 'descending';
    for (const other of table.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const unit = {k: 1e3, M: 1e6, G: 1e9};
    const value = row => {
      const text = row.cells[column].textContent.replace('\\u2212', '-').replace('< ', '');
      const match = text.match(/^-?[0-9.]+([kMG]?)/);
      return match ? parseFloat(text) * (unit[match[1]] || 1) : null;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) {
        const words = a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        return (x === null) - (y === null) || (down ? words : -words);
      }
      return down ? y - x : x - y;
    });
    body.append(...rows);
  };
  head.tabIndex = 0;
  head.addEventListener('click', sort);
  head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
}
"""
_CAPTIONS = {
    "forest": "Score of every setting with its interval over recordings; the dashed line is the reference.",
    "parameters": "Score against the number of trained parameters.",
    "recordings": "Every recording under each setting against the reference: above the line the setting is better.",
}


def render(
    title: str,
    columns: Sequence[tuple[str, Callable[[Row], str]]],
    rows: Sequence[Row],
    notes: Sequence[str],
    pictures: Sequence[epath.Path],
    spec: str,
) -> str:
    """The page's text; it needs no network and no other file, but links the run folders beside it."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name, _ in columns)
    return "\n".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width, initial-scale=1'>",
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
            f"<h1>{html.escape(title)}</h1>",
            f"<p><code>python launch.py sweep --config={html.escape(spec)} --workdir=DIR</code></p>",
            f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>",
            *(_row(row, columns) for row in rows),
            "</tbody></table></div>",
            *_failures(rows),
            "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>",
            "<h2>Figures</h2><div class=figures>" if pictures else "<div>",
            *(_picture(path) for path in pictures),
            "</div>",
            "<h2>Each row alone</h2><p>The command of the row's first seed.</p>",
            *(f"<p>{html.escape(row.name)}</p><pre>{html.escape(row.command)}</pre>" for row in rows),
            f"<script>{_SCRIPT}</script></html>\n",
        )
    )


def _row(row: Row, columns: Sequence[tuple[str, Callable[[Row], str]]]) -> str:
    kind = "reference" if row.reference else "failed" if row.error and not row.seeds else ""
    cells = [html.escape(show(row)) for _, show in columns]
    if row.folders:
        cells[0] = f"<a href='{html.escape(row.folders[0], quote=True)}'>{cells[0]}</a>"
    return f"<tr class='{kind}'>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = [f"<li><b>{html.escape(r.name)}</b> failed: {html.escape(r.error)}</li>" for r in rows if r.error]
    return [f"<ul>{''.join(failed)}</ul>"] if failed else []


def _picture(path: epath.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = _CAPTIONS[path.stem]
    return (
        f"<figure><img alt='{html.escape(caption, quote=True)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
