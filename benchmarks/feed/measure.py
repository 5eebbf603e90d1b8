"""One measurement of ours, in a process of its own: `python -m benchmarks.feed.measure {step,input} CONFIG OVERRIDE …`.

Prints examples/s, and examples per step. `step`: the compiled step on one batch that lies on the device. `input`:
batches drawn and put on the device, with no step.
"""

import contextlib
import json
import pathlib
import sys
import tempfile
import time

from etils import epath

from avemo.cli import process
from avemo.training.single import SingleRun

SECONDS = 5.0


def rate(what: str, program: SingleRun) -> float:
    """Examples per second of the step alone or of the input alone."""
    import jax

    count, batches = program.draw()
    if what == "step":
        jax.block_until_ready(program.step(count, batches))  # compiles
        jax.block_until_ready(program.step(count, batches))
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(4):
            if what == "step":
                values = program.step(count, batches)
            else:
                count, batches = program.draw()
                values = batches
            done += count
        jax.block_until_ready(values)
    return done * program.examples / (time.perf_counter() - began)


def main(what: str, path: str, overrides: list[str]) -> None:
    process.start()
    from avemo import configuration, tasks
    from avemo.runs import run_folder

    config = configuration.load(path, overrides)
    with tempfile.TemporaryDirectory() as folder:
        workdir = run_folder.prepare_workdir(config, epath.Path(folder))
        stage = tasks.make(config)
        with contextlib.closing(SingleRun(stage, tasks.open_data(stage), workdir)) as program:
            print(json.dumps({"rate": rate(what, program), "examples": program.examples}))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
