"""Kills training at random moments, restarts it, and compares the result bit for bit with an uninterrupted run.

    python -m benchmarks.chaos [--kills=20] [--seed=0] [--tasks=teacher,student,audio,fusion,end_to_end]

Each task runs `launch.py train` on a tiny corpus with the real record schemas. Each attempt is a process forked from
one that has imported everything but touched no device, so a start costs no imports. SIGKILL goes to its whole process
group at a moment drawn uniformly from the length of an uninterrupted run. The same command then restarts on the same
folder, until it ends; new runs follow until all kills are used. Each is compared with the uninterrupted run: every
array of the latest and the best checkpoint, every line of metrics.jsonl (none lost, none doubled; clocks aside), the
result and the predictions. The exit status is 1 if anything differs.

Between them the tasks read their data in every way: teacher from arrays on the host, which each of its runs packs anew,
so that kills leave them half written; audio and fusion from the devices, fusion two steps per dispatch; the others from
the shards.
"""

import argparse
import concurrent.futures
import faulthandler
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
FACES = [
    *("--config.model.width=0.0625", "--config.model.repeats_35=1", "--config.model.repeats_17=1"),
    *("--config.model.neck_channels=8", "--config.model.dense_layers=1", "--config.model.dense_growth=4"),
]
LOOP = ("--config.steps=12", "--config.log_every=1", "--config.eval_every=2")  # saves every other step
SETTINGS = {
    "teacher": [*FACES, "--config.best_metric=dev/accuracy", "--config.data.resident=host"],
    "student": [*FACES, "--config.best_metric=dev/accuracy", "--config.data.resident=off"],
    "audio": [
        *("--config.model.width=0.0625", "--config.model.fc_dim=16", "--config.model.embedding_dim=8"),
        *("--config.data.delay=0.0", "--config.data.windows=2", "--config.data.resident=device"),
    ],
    "fusion": [
        *("--config.model.fusion_args.features=8", "--config.model.temporal_args.features=8"),
        *("--config.data.sequence_length=10", "--config.data.sequence_hop=5", "--config.data.delay=0.0"),
        *("--config.data.resident=device", "--config.steps_per_dispatch=2", "--config.log_every=2"),
    ],
    "end_to_end": [
        *("--config.data.sequence_length=4", "--config.data.sequence_hop=4", "--config.data.delay=0.0"),
        *("--config.data.batch.clips=2", "--config.data.eval_frames=20"),
        *("--config.steps=8", "--config.log_every=1", "--config.eval_every=2"),
    ],
}
PACKS = {"teacher": ("faces", "triplets")}  # the data sets that only this task packs
NEEDS = {"student": "teacher", "fusion": "student", "end_to_end": "fusion"}


def warm_up() -> None:
    """Imports everything that an attempt needs. No device is touched, because a process with devices cannot fork."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import tensorboardX  # noqa: F401

    import launch  # noqa: F401
    from avemo.runs import recorded_encoders  # noqa: F401
    from avemo.training import train  # noqa: F401


def fork(call: Callable[[], int], log: pathlib.Path) -> int:
    """Runs `call` in a child with its own process group and its output in `log`; returns the child's id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        faulthandler.enable()
        code = call()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int, deadline: float = float("inf")) -> int | None:
    """The child's exit status, or None if it was killed at the deadline (of `time.monotonic`)."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:  # it does not lead its group yet
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def command(argv: Sequence[str], log: pathlib.Path) -> int:
    """Starts one command of `launch.py`; returns the child's id."""
    import launch

    return fork(lambda: launch.main(list(argv)), log)


def check(child: int, log: pathlib.Path) -> None:
    """Waits for a child that must succeed."""
    code = wait(child)
    if code:
        sys.exit(f"exit status {code}:\n{log.read_text()[-3000:]}")


def differences(one: pathlib.Path, two: pathlib.Path) -> list[str]:
    """The differences between two finished run folders, clocks aside."""
    import jax
    import numpy as np

    from avemo.runs import checkpoints, metrics_log

    found = []
    for which in ("latest", "best"):
        (_, a_step, a), (_, b_step, b) = (checkpoints.load(folder, which) for folder in (one, two))
        if a_step != b_step:
            found.append(f"{which} checkpoint: step {a_step}, then {b_step}")
        x_leaves, y_leaves = (jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b))
        if [path for path, _ in x_leaves] != [path for path, _ in y_leaves]:
            found.append(f"{which} checkpoint: different arrays")
        found += [
            f"{which} checkpoint: {jax.tree_util.keystr(path)}"
            for (path, x), (_, y) in zip(x_leaves, y_leaves, strict=False)
            if x.dtype != y.dtype or not np.array_equal(x, y, equal_nan=True)
        ]

    def lines(folder: pathlib.Path) -> list[dict]:
        rows = metrics_log.read(folder / "metrics.jsonl")
        return [
            {k: v for k, v in row.items() if k in ("step", "split") or (k != "wall_time" and row["split"] != "timing")}
            for row in rows
        ]

    first, second = lines(one), lines(two)
    if len(first) != len(second):
        found.append(f"metrics.jsonl: {len(first)} lines, then {len(second)}")
    found += [f"metrics.jsonl: {x}, then {y}" for x, y in zip(first, second, strict=False) if x != y]
    a, b = (json.loads((folder / "result.json").read_text()) for folder in (one, two))
    found += [f"result.json: {key}" for key in a if key != "seconds" and a[key] != b.get(key)]
    for path in sorted((one / "predictions").iterdir()):
        with np.load(path) as x, np.load(two / "predictions" / path.name) as y:
            same = x.files == y.files and all(np.array_equal(x[name], y[name]) for name in x.files)
        if not same:
            found.append(f"predictions/{path.name}")
    return found


def compare(one: pathlib.Path, two: pathlib.Path, log: pathlib.Path) -> bool:
    """Whether two run folders are the same. A child compares them, because that touches a device."""

    def call() -> int:
        found = differences(one, two)
        print(f"{two} differs from {one}:" if found else "equal", *found[:20], sep="\n  ")
        return bool(found)

    return wait(fork(call, log)) == 0


def corpus(folder: pathlib.Path) -> dict[str, list[str]]:
    """Writes the tiny corpus; returns each task's overrides that name data and runs."""

    def call() -> int:
        (folder / "corpus.json").write_text(json.dumps(_write(folder)))
        return 0

    log = folder / "corpus.log"
    check(fork(call, log), log)  # in a child, because the shard writer starts threads
    return json.loads((folder / "corpus.json").read_text())


def _write(folder: pathlib.Path) -> dict[str, list[str]]:
    from helpers import toy

    faces, triplets = toy.faces(folder), toy.triplets(folder)
    unlabelled = toy.faces(folder, labelled=False, name="unlabelled")
    clips = toy.clips(folder, train=8, dev=2, frames=20, segments=1)
    stills = [f"--config.data.faces={faces}", f"--config.data.triplets={triplets}"]
    straight = folder / "straight"
    return {
        "teacher": stills,
        "student": [*stills, f"--config.data.unlabelled={unlabelled}", f"--config.teacher={straight / 'teacher'}"],
        "audio": [f"--config.data.clips={clips}"],
        "fusion": [f"--config.data.features={folder / 'features'}"],
        "end_to_end": [f"--config.data.clips={clips}", f"--config.fusion={straight / 'fusion'}"],
    }


def uninterrupted(
    folder: pathlib.Path, names: Sequence[str], chosen: Sequence[str], commands: dict[str, list[str]]
) -> dict[str, float]:
    """Runs each task, the chosen ones twice because the first compiles; returns the seconds of each task's last run."""
    seconds = {}
    for name in names:
        log = folder / f"{name}.log"
        if name == "fusion":
            encoders = f"{folder / 'straight/student'},{folder / 'straight/audio'}"
            clips = next(a for a in commands["audio"] if "data.clips" in a).partition("=")[2]
            arguments = [f"--workdir={encoders}", f"--data={clips}", f"--output={folder / 'features'}"]
            check(command(["extract", *arguments], log), log)
        for again in ("cold", "straight") if name in chosen else ("straight",):
            began = time.monotonic()
            check(command([*commands[name], f"--workdir={folder / again / name}"], log), log)
            seconds[name] = time.monotonic() - began
        if name in chosen and not compare(folder / "cold" / name, folder / "straight" / name, log):
            sys.exit(f"{name}: two uninterrupted runs differ:\n{log.read_text()[-3000:]}")
        print(f"{name}: an uninterrupted run takes {seconds[name]:.1f} s", flush=True)
    return seconds


def torment(name: str, argv: list[str], folder: pathlib.Path, kills: int, life: float, seed: int) -> dict:
    """Runs one task with `kills` kills; returns its row of the table."""
    import numpy as np

    draw = np.random.default_rng([seed, *name.encode()])
    began, log = time.monotonic(), folder / f"{name}.log"
    killed = restarts = runs = 0
    equal, alive = True, True
    while alive:
        run = folder / "killed" / f"{name}{runs}"
        for data in PACKS.get(name, ()):
            shutil.rmtree(folder / data / "1.0.0" / "packed", ignore_errors=True)
        fresh = True
        while True:
            moment = draw.uniform(0, life) if killed < kills else float("inf")
            restarts += not fresh
            started = time.monotonic()
            code = wait(command([*argv, f"--workdir={run}"], log), started + moment)
            if fresh and code == 0:  # a life measured on a busy machine is too long: most kills would come too late
                life = min(life, time.monotonic() - started)
            fresh = False
            if code is not None:
                break
            killed += 1
        runs += 1
        equal &= code == 0 and compare(folder / "straight" / name, run, log)
        alive = equal and killed < kills
        if equal:
            shutil.rmtree(run)
    row = {"task": name, "kills": killed, "restarts": restarts, "runs": runs, "equal": "yes" if equal else "NO"}
    return row | {"seconds": round(time.monotonic() - began), "log": str(log)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills per task (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default 0)")
    parser.add_argument("--tasks", default=",".join(SETTINGS), help=f"some of {', '.join(SETTINGS)} (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="tasks at once (default 2)")
    args = parser.parse_args(argv)
    chosen = args.tasks.split(",")
    needed = set(chosen)
    while more := {NEEDS[name] for name in needed if name in NEEDS} - needed:
        needed |= more
    if needed & {"fusion", "end_to_end"}:
        needed.add("audio")
    began = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos"))
    # One compilation serves all attempts: this tests training, not the compiler.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    warm_up()
    own = corpus(folder)
    commands = {
        name: ["train", f"--config={ROOT}/configs/demo/{name}.py:smoke", *LOOP, *SETTINGS[name], *own[name]]
        for name in SETTINGS
    }
    life = uninterrupted(folder, [name for name in SETTINGS if name in needed], chosen, commands)
    columns = ("task", "kills", "restarts", "runs", "equal", "seconds")
    rows = []
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(args.processes, mp_context=context) as pool:
        waiting = [
            pool.submit(torment, name, commands[name], folder, args.kills, life[name], args.seed) for name in chosen
        ]
        print(*(f"{column:>10}" for column in columns), flush=True)
        for future in waiting:
            rows.append(future.result())
            print(*(f"{rows[-1][column]!s:>10}" for column in columns), flush=True)
    print(f"{sum(row['kills'] for row in rows)} kills in {time.monotonic() - began:.0f} s")
    failed = [row for row in rows if row["equal"] != "yes"]
    for row in failed:
        print(f"{row['task']} ({row['log']}):\n{pathlib.Path(row['log']).read_text()[-2000:]}")
    if not failed:
        shutil.rmtree(folder)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
