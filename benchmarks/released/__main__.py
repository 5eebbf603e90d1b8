"""Scores the release that avemo carries and writes docs/models.md; with --train makes it anew first.

python -m benchmarks.released                     # minutes: make results
python -m benchmarks.released --train             # an hour or two of two CPU cores, resumable
python -m benchmarks.released --page              # the page alone, from docs/models.json
"""

import argparse
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

from avemo.runs import shipped
from benchmarks.released import page, recipe, scores
from benchmarks.results.steps import ROOT, SOURCE, Place, StepRunner
from media.errors import UserError
from media.files import read_json, write_atomically


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(SOURCE), help="folder of the corpora and published weights")
    parser.add_argument("--workdir", default="runs/released", help="folder for everything that is made")
    parser.add_argument("--output", default="docs/models.md", help="the page; its scores go into a .json beside it")
    parser.add_argument("--train", action="store_true", help="train, and put the release into avemo/runs")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    output = pathlib.Path(arguments.output)
    place = Place(pathlib.Path(arguments.source), pathlib.Path(arguments.workdir), "")
    try:
        if not arguments.page:
            kept = output.with_suffix(".json")
            before = json.loads(kept.read_text())["rows"] if kept.exists() else ()
            found = _measured(place, arguments.train, before)
            write_atomically(kept, json.dumps(found, indent=1) + "\n")
        write_atomically(output, page.text(read_json(output.with_suffix(".json"), "run without --page first")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measured(place: Place, train: bool, before: Sequence[dict]) -> dict:
    if not place.source.is_dir():
        raise UserError(f"--source={place.source} is not a folder: name the one with the corpora (docs/corpora.md).")
    scores.clip(place)  # before hours are spent
    place.work.mkdir(parents=True, exist_ok=True)
    os.environ["AVEMO_CACHE"] = str((place.work / "cache").resolve())
    runner = StepRunner(place)
    if train:
        for step in [*recipe.data(place), *recipe.networks(place), *recipe.packed(place, recipe.RELEASE, "speech")]:
            runner.run(step)
        publish(place.work / shipped.FILENAME)
        for step in [*recipe.packed(place, recipe.TWIN, "speech_f0"), *scores.twin_steps(place)]:
            runner.run(step)
    for step in [*recipe.data(place), *scores.steps(place)]:
        runner.run(step)
    return scores.measure(place, before)


def publish(archive: pathlib.Path) -> None:
    """Puts an archive and its SHA-256 where avemo looks for them."""
    target = ROOT / "avemo" / "runs" / shipped.FILENAME
    size = archive.stat().st_size
    if size > shipped.LIMIT:
        raise UserError(f"{archive} has {size / 1e6:.1f} MB, more than the {shipped.LIMIT / 1e6:.0f} MB of a clone.")
    shutil.copyfile(archive, target)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (target.parent / shipped.DIGEST).write_text(f"{digest}  {shipped.FILENAME}\n")


if __name__ == "__main__":
    sys.exit(main())
