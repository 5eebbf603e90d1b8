"""`python -m benchmarks.parity [visual] [audio]`: prints the parity table; exit status 1 if a row fails."""

import argparse
import importlib
import sys

from benchmarks.parity.table import Row, render

GROUPS = ("visual", "audio")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"{' or '.join(GROUPS)} (default: both)")
    groups = parser.parse_args(argv).groups or list(GROUPS)
    if not set(groups) <= set(GROUPS):
        parser.error(f"groups are {', '.join(GROUPS)}")
    rows: list[Row] = []
    for group in groups:
        rows += importlib.import_module(f"benchmarks.parity.{group}").rows()
    print(render(rows))
    failed = [row.name for row in rows if not row.passed]
    if failed:
        print(f"\n{len(failed)} of {len(rows)} rows fail: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
