"""`python -m avemo.models.pretrained NAME --file=PATH --output=DIR`: converts published weights once."""

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from avemo.data import mixture
from avemo.data.network_inputs import network_inputs
from avemo.models import pretrained
from avemo.models.pretrained import networks
from media import quiet_failures
from media.errors import UserError
from media.standard_output import ends_quietly


@ends_quietly
def main(argv: list[str] | None = None) -> int:
    """Runs the converter; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m avemo.models.pretrained", description=pretrained.__doc__)
    parser.add_argument("name", help=f"one of {', '.join(sorted(networks.SOURCES))}")
    parser.add_argument("--file", required=True, help="the published weights")
    parser.add_argument("--output", required=True, help="folder to create")
    parser.add_argument(
        "--statistics",
        default="",
        help="prepared faces (clips for an audio network) whose BatchNorm statistics replace those that were folded "
        "away; the network computes the same and learns faster with model.freeze_statistics=False",
    )
    parser.add_argument("--image_size", type=int, default=64, help="side of the faces for --statistics, in px")
    arguments = parser.parse_args(argv)
    quiet_failures.install()
    try:
        sample = _sample(arguments.statistics, arguments.image_size) if arguments.statistics else None
        provenance = pretrained.convert(arguments.name, arguments.file, arguments.output, sample)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{arguments.output}: {provenance['network']}, {provenance['parameters']:,} parameters, "
        f"SHA-256 {provenance['sha256']}\nlicence: {provenance['licence']}"
    )
    return 0


def _sample(folder: str, image_size: int) -> pretrained.Sample:
    def batches(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        return network_inputs(folder, shape, image_size)

    return pretrained.Sample(batches, mixture.fingerprint(folder), image_size)


if __name__ == "__main__":
    sys.exit(main())
