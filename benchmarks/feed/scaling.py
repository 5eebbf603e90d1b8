"""How decoding scales with processes: faces/s from stored JPEGs of 224 px to uint8 batches of 140 px."""

import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE, BATCH = 140, 64
SECONDS = 8.0


def table(folder: str, cores: int) -> str:
    """The table of one data set of faces.

    The last column is the share of what as many processes reach that have nothing to do with each other: two cores may
    be two threads of one.
    """
    alone = {count: _apart(folder, count) for count in _counts(cores)}
    threads = _measure(folder, 0)
    rows = [f"| this process alone | {threads:,.0f} | - | - |"]
    first = 0.0
    for count in _counts(cores):
        rate = _measure(folder, count)
        first = first or rate
        rows.append(f"| {count} | {rate:,.0f} | {rate / first / count:.2f} | {rate / alone[count]:.2f} |")
    head = "| processes | faces/s | of linear | of as many independent ones |\n|---|---|---|---|"
    return "\n".join(["", head, *rows])


def _counts(cores: int) -> list[int]:
    return sorted({*(2**power for power in range(10) if 2**power < cores), cores})


def _start(folder: str, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.feed.scaling", folder, str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _finish(processes: list[subprocess.Popen[str]]) -> float:
    """Lets processes that are ready begin together; returns the sum of their rates."""
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in processes)


def _measure(folder: str, workers: int) -> float:
    return _finish([_start(folder, workers)])


def _apart(folder: str, count: int) -> float:
    return _finish([_start(folder, 0) for _ in range(count)])


def main(folder: str, workers: int) -> None:
    """Reads faces until `SECONDS` are over; prints faces/s."""
    import cv2

    from avemo import configuration, tasks

    cv2.setNumThreads(1)
    fields = {"data.faces": folder, "data.batch.triplets": 0, "data.batch.faces": BATCH, "model.image_size": SIZE}
    fields |= {"data.resident": "off", "data.threads": 0, "data.workers": workers, "data.augment.crop": 0.0}
    config = configuration.load("configs/paper/teacher.py", [f"--config.{k}={v}" for k, v in fields.items()])
    batches = iter(tasks.open_data(tasks.make(config)).open_feed({}).batches)
    for _ in range(workers + 1):  # all processes have started
        next(batches)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(config.data.prefetch + workers):  # what was made while this process waited
        next(batches)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        assert next(batches)["faces"]["image"].shape == (BATCH, SIZE, SIZE, 3)
        done += BATCH
    print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1], int(sys.argv[2]))
