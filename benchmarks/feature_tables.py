"""How fast tables of features become shards, and how much memory that takes.

    python -m benchmarks.feature_tables --megabytes=200 [--recordings=20] [--columns=88] [--workers=1]

It writes one CSV file that holds all recordings, at 100 rows per second, and prepares it onto labels at 10 Hz.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

BYTES_PER_CELL = 9  # as "-0.12345,"


def write(folder: pathlib.Path, megabytes: int, recordings: int, columns: int) -> float:
    """Writes a table of about so many MB and its labels; returns its exact size, MB."""
    rows = max(20, int(megabytes * 1e6 / (BYTES_PER_CELL * columns) / recordings))
    rng = np.random.default_rng(0)
    (folder / "labels").mkdir()
    with open(folder / "all.csv", "w") as file:
        file.write(",".join(["name", "time", *(f"f{i}" for i in range(columns))]) + "\n")
        for number in range(recordings):
            block = rng.normal(size=(rows, columns)).astype(np.float32)
            for row, values in enumerate(block):
                file.write(f"train_{number},{row / 100:.2f}," + ",".join(f"{value:.5f}" for value in values) + "\n")
            times = np.arange(0, rows / 100, 0.1)
            lines = (f"{at:.1f},{np.sin(at / 9):.4f},{np.cos(at / 7):.4f}" for at in times)
            (folder / "labels" / f"train_{number}.csv").write_text("time,valence,arousal\n" + "\n".join(lines) + "\n")
    return (folder / "all.csv").stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("megabytes", 200), ("recordings", 20), ("columns", 88), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        size = write(folder, chosen.megabytes, chosen.recordings, chosen.columns)
        command = [sys.executable, "-m", "data_prep", "features", f"--source={folder}", f"--output={folder / 'out'}"]
        command += ["--audio=all.csv:align=mean", "--labels=labels", "--quiet", f"--workers={chosen.workers}"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    print(f"{size:.0f} MB of CSV, {chosen.recordings} recordings, {chosen.columns} columns, {chosen.workers} workers")
    print(f"  {seconds:.1f} s, {processor:.1f} s of processor time, {size / processor:.0f} MB per processor second")
    print(f"  largest process: {used.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
