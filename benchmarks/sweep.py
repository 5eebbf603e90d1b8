"""Times a sweep against training the same cells one after another with `launch.py train`, on one machine.

    python -m benchmarks.sweep --features=DIR [--cells=3] [--workdir=DIR]

The whole sweep (14 fusions × 5 seeds of configs/ablations/fusion.py:demo) runs in a fresh process, as a user runs it.
`--cells` single cells, spread evenly over the settings, run in a process each; their mean is multiplied by the number
of cells, because running all 70 would take an hour. Prints a table of wall-clock seconds, and of processor seconds,
which other work on the machine does not change.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CONFIG = "configs/ablations/fusion.py:demo"


def timed(arguments: list[str]) -> tuple[float, float]:
    """Runs a process that must succeed; returns its wall-clock and processor seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.time() - began, sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", required=True, help="features written by `launch.py extract`")
    parser.add_argument("--cells", type=int, default=3, help="cells run alone (default 3)")
    parser.add_argument("--workdir", help="where to keep the sweep (default: a temporary folder)")
    parser.add_argument("--config", default=CONFIG, help=f"the sweep (default {CONFIG})")
    args = parser.parse_args()

    from avemo.sweep import plan

    override = f"--config.data.features={pathlib.Path(args.features).absolute()}"
    settings = plan.cells(plan.load(args.config, [override]))
    count = sum(len(seeds) for candidates in settings for seeds in candidates)
    with tempfile.TemporaryDirectory() as temporary:
        workdir = pathlib.Path(args.workdir or f"{temporary}/sweep").absolute()
        together = timed(["launch.py", "sweep", f"--config={args.config}", f"--workdir={workdir}", override])
        chosen = [settings[len(settings) * i // args.cells][0][i % len(settings[0][0])] for i in range(args.cells)]
        alone, worst = [], 0.0
        for number, cell in enumerate(chosen):
            folder = pathlib.Path(temporary) / f"alone{number}"
            command = shlex.split(cell.command(workdir))[1:]
            alone.append(timed([f"--workdir={folder}" if c.startswith("--workdir=") else c for c in command]))
            mine, theirs = (
                json.loads((f / "result.json").read_text())["metrics"] for f in (folder, workdir / cell.folder)
            )
            worst = max(worst, *(abs(mine[s][k] - theirs[s][k]) for s in mine for k in mine[s]))
    mean = [sum(values) / len(alone) for values in zip(*alone, strict=True)]
    print(f"| {count} cells, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} | wall-clock s | processor s |")
    print("|:--|--:|--:|")
    print(f"| one sweep | {together[0]:.0f} | {together[1]:.0f} |")
    print(f"| one cell alone (mean of {len(alone)}) | {mean[0]:.1f} | {mean[1]:.1f} |")
    print(f"| all cells one after another, extrapolated | {mean[0] * count:.0f} | {mean[1] * count:.0f} |")
    print(f"| ratio | {mean[0] * count / together[0]:.1f} | {mean[1] * count / together[1]:.1f} |")
    print(f"\nLargest difference of any metric between a cell in the sweep and alone: {worst:.1e}")


if __name__ == "__main__":
    main()
