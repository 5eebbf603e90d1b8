"""`python -m benchmarks.speed [ROW …] [--pairs=N] [--profile]`: our speed over PyTorch's on this machine's CPU.

Both run the same network on the same batch in one process with the same number of threads, in turns, so that a
machine that is busy is busy for both; PyTorch's images are channels_last. A ratio is PyTorch's time over ours, the
median of the pairs; the milliseconds are each side's median, the processor ratio that of processor seconds over all
threads. Compiling and the first call are not counted. The exit status is 1 if a row is below what is required of it.

`--profile` prints where our time goes instead: each convolution of the trunk by itself, forward and backward.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: what is timed, the ratio that is required and the one aimed at, and the pair of calls."""

    name: str
    what: str
    required: float
    aim: float | None
    build: Callable[[], tuple[Callable[[], object], Callable[[], object]]]
    pairs: int = 7


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of one call."""

    wall: float
    processor: float


def timed(call: Callable[[], object]) -> Timing:
    """Times one call."""
    processor, wall = time.process_time(), time.perf_counter()
    call()
    return Timing(time.perf_counter() - wall, time.process_time() - processor)


def alternate(ours: Callable, theirs: Callable, pairs: int) -> tuple[list[Timing], list[Timing]]:
    """Times both in turns, each first in every other pair, after one call of each that is not counted."""
    ours(), theirs()
    results: tuple[list[Timing], list[Timing]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            results[side].append(timed((ours, theirs)[side]))
    return results


def ratio(ours: list[Timing], theirs: list[Timing], field: str) -> float:
    """Returns the median over pairs of their time over ours."""
    return statistics.median(getattr(b, field) / getattr(a, field) for a, b in zip(ours, theirs, strict=True))


def line(row: Row, pairs: int | None) -> tuple[str, bool]:
    """Measures a row; returns its line of the table and whether it reaches what is required."""
    ours, theirs = alternate(*row.build(), pairs or row.pairs)
    ms = [1000 * statistics.median(t.wall for t in side) for side in (ours, theirs)]
    wall, processor = ratio(ours, theirs, "wall"), ratio(ours, theirs, "processor")
    verdict = "below" if wall < row.required else "required" if row.aim is None or wall < row.aim else "aim"
    aim = "-" if row.aim is None else f"{row.aim:.1f}x"
    cells = (row.what, f"{ms[0]:.1f}", f"{ms[1]:.1f}", f"{wall:.2f}x", f"{processor:.2f}x", f"{row.required:.1f}x", aim)
    return f"| {' | '.join(cells)} | {verdict} |", wall >= row.required


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 1 if a row is below its requirement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n\n")[1])
    parser.add_argument("rows", nargs="*", metavar="row", help="names of rows (default: all)")
    parser.add_argument("--pairs", type=int, help="timed pairs a row")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="PyTorch's threads; ours are XLA's")
    parser.add_argument("--profile", action="store_true", help="our time by convolution instead")
    arguments = parser.parse_args(argv)

    import torch

    from avemo import runtime

    runtime.prefer_wide_vectors()  # as every command does
    runtime.make_host_devices(arguments.threads)  # all rows but one use the first alone
    torch.set_num_threads(arguments.threads)
    if arguments.profile:
        from benchmarks import speed_profile

        print(speed_profile.table())
        return 0
    from benchmarks.speed_rows import ROWS

    known = {row.name: row for row in ROWS}
    if unknown := set(arguments.rows) - set(known):
        parser.error(f"no row {', '.join(sorted(unknown))}; rows are {', '.join(known)}")
    print(f"{arguments.threads} threads, PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start\n")
    print("| what | ours ms | PyTorch ms | ratio | of processor time | required | aim | reached |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    reached = []
    for row in (known[name] for name in arguments.rows or known):
        text, good = line(row, arguments.pairs)
        print(text, flush=True)
        reached.append(good)
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
