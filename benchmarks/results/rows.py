"""All rows, in the document's order."""

from benchmarks.results import cross, faces, synthetic, takes, voice

ROWS = {**faces.ROWS, **cross.ROWS, **voice.ROWS, **takes.ROWS, **synthetic.ROWS}
