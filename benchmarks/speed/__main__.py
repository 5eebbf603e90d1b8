"""`python -m benchmarks.speed [ROW …] [--pairs=N] [--profile]`: our speed beside PyTorch's on this machine's CPU.

Both run the same network on the same batch, in one process, with the same number of threads, in turns, so that other
work on the machine slows both alike. PyTorch's images are channels_last. A ratio is PyTorch's time divided by ours, the
median over the pairs. Milliseconds are each side's median; the processor ratio compares processor seconds over all
threads. Compilation and the first call are not counted. The exit status is 1 if a row misses its required ratio.

`--profile` prints where our time goes instead: each convolution of the trunk by itself, forward and backward.
"""

import argparse
import os
import statistics
import sys

from benchmarks.speed.timing import Comparison, alternate, ratio


def line(comparison: Comparison, pairs: int | None) -> tuple[str, bool]:
    """Times a comparison; returns its line of the table and whether it reaches the required ratio."""
    ours, theirs = alternate(*comparison.build(), pairs or comparison.pairs)
    ms = [1000 * statistics.median(t.wall for t in side) for side in (ours, theirs)]
    wall, processor = ratio(ours, theirs, "wall"), ratio(ours, theirs, "processor")
    required, aim = comparison.required, comparison.aim
    verdict = "below" if wall < required else "required" if aim is None or wall < aim else "aim"
    wanted = (f"{required:.1f}x", "-" if aim is None else f"{aim:.1f}x")
    cells = (comparison.what, f"{ms[0]:.1f}", f"{ms[1]:.1f}", f"{wall:.2f}x", f"{processor:.2f}x", *wanted)
    return f"| {' | '.join(cells)} | {verdict} |", wall >= required


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 1 if a row misses its required ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("rows", nargs="*", metavar="row", help="names of rows (default: all)")
    parser.add_argument("--pairs", type=int, help="timed pairs per row")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="PyTorch's threads; ours are XLA's")
    parser.add_argument("--profile", action="store_true", help="print our time by convolution instead")
    arguments = parser.parse_args(argv)

    import torch

    from avemo.cli import process

    process.prefer_wide_vectors()  # as every command does
    process.make_host_devices(arguments.threads)  # all rows but one use only the first device
    torch.set_num_threads(arguments.threads)
    # Imported only now: JAX reads its flags once.
    if arguments.profile:
        from benchmarks.speed import convolutions

        print(convolutions.table())
        return 0
    from benchmarks.speed.comparisons import COMPARISONS

    known = {comparison.name: comparison for comparison in COMPARISONS}
    if unknown := set(arguments.rows) - set(known):
        parser.error(f"no row {', '.join(sorted(unknown))}; rows are {', '.join(known)}")
    print(f"{arguments.threads} threads, PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start\n")
    print("| what | ours ms | PyTorch ms | ratio | of processor time | required | aim | reached |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    reached = []
    for name in arguments.rows or known:
        text, good = line(known[name], arguments.pairs)
        print(text, flush=True)
        reached.append(good)
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
