"""`python -m benchmarks.parity [visual] [audio]`: prints the parity table; exit status 1 if a row fails."""

import argparse
import importlib
import sys

from benchmarks.parity.table import Row, render

PARTS = ("visual", "audio")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parts = parser.parse_args(argv).parts or list(PARTS)
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    rows: list[Row] = []
    for part in parts:
        rows += importlib.import_module(f"benchmarks.parity.{part}").rows()
    print(render(rows))
    failed = [row.name for row in rows if not row.passed]
    if failed:
        print(f"\n{len(failed)} of {len(rows)} rows fail: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
