"""The command: python -m data_prep.synthetic --output=DIR."""

import argparse
import dataclasses
import sys

import tqdm

from data_prep.synthetic.corpus import Settings, generate
from media.errors import UserError


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and generates; returns the exit status, 2 for what the user can put right."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic", description=sys.modules["data_prep.synthetic"].__doc__
    )
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    text = dict(
        line.strip().split(": ", 1) for line in Settings.__doc__.split("Attributes:")[1].splitlines() if ": " in line
    )
    for field in dataclasses.fields(Settings):
        many = isinstance(field.default, tuple)
        shown = ",".join(map(str, field.default)) if many else field.default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_numbers if many else type(field.default),
            default=field.default,
            help=f"{text[field.name]} (default {shown})",
        )
    given = vars(parser.parse_args(argv))
    output, workers = given.pop("output"), given.pop("workers")
    try:
        for name, value in given.items():
            if isinstance(value, tuple) and len(value) != len(getattr(Settings, name)):
                raise UserError(f"--{name}: {len(getattr(Settings, name))} numbers, separated by commas")
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
