"""`python -m avemo.models.pretrained NAME --file=PATH --output=DIR`: converts published weights once."""

import argparse
import sys

from avemo.errors import UserError
from avemo.models import pretrained
from avemo.models.pretrained import networks


def main(argv: list[str] | None = None) -> int:
    """Runs the converter; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m avemo.models.pretrained", description=pretrained.__doc__)
    parser.add_argument("name", help=f"one of {', '.join(sorted(networks.SOURCES))}")
    parser.add_argument("--file", required=True, help="the published weights")
    parser.add_argument("--output", required=True, help="folder to create")
    arguments = parser.parse_args(argv)
    try:
        provenance = pretrained.convert(arguments.name, arguments.file, arguments.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{arguments.output}: {provenance['network']}, {provenance['parameters']:,} parameters, "
        f"SHA-256 {provenance['sha256']}\nlicence: {provenance['licence']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
