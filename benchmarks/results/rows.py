"""All rows, in the document's order."""

from benchmarks.results import faces, synthetic, takes, voice

ROWS = {**faces.ROWS, **voice.ROWS, **takes.ROWS, **synthetic.ROWS}
