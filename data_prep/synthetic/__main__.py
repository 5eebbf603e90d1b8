"""The command `python -m data_prep.synthetic --output=DIR`."""

import argparse
import dataclasses
import sys
from typing import Any

import tqdm

from data_prep.synthetic.corpus import Settings, generate
from media.errors import UserError
from media.standard_output import ends_quietly
from media.termination import ends_when_stopped


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


@ends_quietly
@ends_when_stopped("nothing is left; run the same command again")
def main(argv: list[str] | None = None) -> int:
    """Parses the command line and generates the corpus.

    Returns:
      The exit status: 0, 2 if the user has to correct something, 130 interrupted, 143 terminated.
    """
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic", description=sys.modules["data_prep.synthetic"].__doc__
    )
    parser.add_argument("--output", required=True, help="folder to create")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (default 2)")
    attributes = (Settings.__doc__ or "").partition("Attributes:")[2]
    text = {name: words for name, _, words in (line.strip().partition(": ") for line in attributes.splitlines())}
    for field in dataclasses.fields(Settings):
        default: Any = field.default
        many = isinstance(default, tuple)
        shown = ",".join(map(str, default)) if many else default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_numbers if many else type(default),
            default=default,
            help=f"{text[field.name]} (default {shown})",
        )
    given = vars(parser.parse_args(argv))
    output, workers = given.pop("output"), given.pop("workers")
    try:
        for name, value in given.items():
            if isinstance(value, tuple) and len(value) != len(getattr(Settings, name)):
                raise UserError(f"--{name}: {len(getattr(Settings, name))} numbers separated by commas are expected")
        with tqdm.tqdm(desc="synthetic", unit="job", smoothing=0) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            manifest = generate(output, workers=workers, progress=progress, **given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {manifest['files']} files, participants {manifest['participants']}")
    for name, limits in manifest["ceiling"].items():
        print(f"rater ceiling, {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in limits.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
