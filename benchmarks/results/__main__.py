"""Makes docs/results.md and the experiments behind it, one per row of its table.

    python -m benchmarks.results --peers=.venv-peers/bin/python        # all rows: make results TRAIN=1
    python -m benchmarks.results teacher speech --peers=…              # some rows; the document keeps the others
    python -m benchmarks.results sewa --peers=…                        # all rows of that name, and their own document
    python -m benchmarks.results --document                            # the document alone, from the rows already made

After an interruption, run it again: finished steps are not repeated.
"""

import argparse
import logging
import pathlib
import sys

from benchmarks.results import document, experiments
from benchmarks.results.experiment import make
from benchmarks.results.steps import SOURCE, WORK, Place
from media.errors import UserError, unknown


def _named(name: str) -> list[str]:
    """The rows of a name: that row, or all of a family such as `sewa`."""
    rows = [row for row in experiments.EXPERIMENTS if row == name or row.startswith(f"{name}_")]
    if name in experiments.EXPERIMENTS:
        return [name]
    if not rows:
        raise unknown("row", name, experiments.EXPERIMENTS)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"rows to make, of {', '.join(experiments.EXPERIMENTS)} (default: all)")
    parser.add_argument("--source", default=str(SOURCE), help="folder of the corpora and published weights")
    parser.add_argument("--workdir", default=str(WORK), help="folder for everything that is made")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="a Python that has requirements-peers*.txt")
    parser.add_argument("--output", default="docs/results.md", help="the document; figures go into images/ beside it")
    parser.add_argument("--document", action="store_true", help="only write the document")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        every = experiments.EXPERIMENTS
        names = [row for name in arguments.rows for row in _named(name)]
        place = Place(pathlib.Path(arguments.source), pathlib.Path(arguments.workdir), arguments.peers)
        if not arguments.document and not place.source.is_dir():
            raise UserError(
                f"--source={place.source} is not a folder: name the one with the corpora (docs/results.md)."
            )
        chosen = [every[name] for name in names or every]
        failures = [] if arguments.document else make(place, chosen)
        output = pathlib.Path(arguments.output)
        for page in dict.fromkeys(row.page for row in chosen):
            rows = [row for row in every.values() if row.page == page]
            if page:
                document.write_page(place, rows, output.with_name(page))
            else:
                document.write(place, rows, output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
