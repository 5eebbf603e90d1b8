"""Tries what docs/reliability.md promises and writes docs/tables/reliability.md; exit status 1 if a promise is broken.

python -m benchmarks.reliability [--mutants=300] [--kills=4] [--seed=0] [--only=WORD] [--output=FILE.md]
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import chaos
from benchmarks.reliability import faults, fuzz, kills, suite, world
from benchmarks.reliability.samples import samples
from benchmarks.reliability.situations import SITUATIONS

OUTPUT = chaos.ROOT / "docs" / "tables" / "reliability.md"
Row = tuple[str, ...]


SITUATIONS.update(faults.SITUATIONS)


def situation(title: str, folder: pathlib.Path) -> Row:
    """Tries one situation in a new folder."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        try:
            problem = SITUATIONS[title](world.World(folder, pathlib.Path(work)))
        except PermissionError as error:
            return title, f"not tried ({error})"
        except Exception as error:  # the other situations are tried all the same
            problem = f"{type(error).__name__}: {error}"
    return title, _state(problem)


def _state(problem: str) -> str:
    return " ".join(f"**broken**: {problem}".replace("|", "/").split()) if problem else "kept"


def stopped(name: str, folder: pathlib.Path, count: int, seed: int) -> Row:
    """Stops one command again and again."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        own = world.World(folder, pathlib.Path(work))
        try:
            done, problem = (
                kills.torment(name, own, count, seed) if name != "demo" else (1, kills.child_of_the_demo(own))
            )
        except Exception as error:  # the other commands are tried all the same
            done, problem = 0, f"{type(error).__name__}: {error}"
    return f"`{name}`", str(done), _state(problem)


def damaged(name: str, count: int, seed: int) -> Row:
    """Reads damaged files of one format in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.reliability.fuzz", name, f"--count={count}", f"--seed={seed}"]
    environment = {**os.environ, "PYTHONPATH": str(chaos.ROOT)}
    done = subprocess.run(command, env=environment, cwd=chaos.ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
        return name, "", "", "", "", f"**broken**: status {done.returncode}: {done.stderr.strip()[-200:]}"
    found = fuzz.Outcome(**json.loads(done.stdout))
    state = "kept" if found.good else f"**broken**: {len(found.failed)} others: {' '.join(found.failed[:1])}"
    return (
        samples()[name].title,
        *(str(found.refused), str(found.read), f"{found.seconds:.1f}", str(found.megabytes)),
        state,
    )


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Tries everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=300, help="damaged files of each format (default 300)")
    parser.add_argument("--kills", type=int, default=4, help="signals for each command (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of damage and moments (default 0)")
    parser.add_argument("--only", default="", help="only the situations, formats and commands with this word")
    parser.add_argument("--output", default="", help=f"the tables (default: {OUTPUT}; with --only: none)")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="reliability"))
    # One compilation serves all commands.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    chaos.warm_up()
    import helpers.films  # noqa: F401 - registers the detector of its squares

    def chosen(*texts: str) -> bool:
        return any(arguments.only in text for text in texts)

    world.make(folder)
    seed = arguments.seed
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        titles = [title for title in SITUATIONS if chosen(title)]
        commands = [name for name in (*kills.COMMANDS, "demo") if chosen(name, "kill")]
        formats = [name for name in samples() if chosen(name, "fuzz")]
        jobs = [pool.submit(situation, title, folder) for title in titles]
        jobs += [pool.submit(stopped, name, folder, arguments.kills, seed) for name in commands]
        jobs += [pool.submit(damaged, name, arguments.mutants, seed) for name in formats]
        jobs += [pool.submit(suite.run, row) for row in suite.ROWS if chosen(row.title, "tests")]
        for job in concurrent.futures.as_completed(jobs):
            print(*job.result(), sep=" | ", flush=True)
        rows = [job.result() for job in jobs]
    groups = [rows[: len(titles)], rows[len(titles) : len(titles) + len(commands)]]
    rest = rows[len(titles) + len(commands) :]
    text = "\n".join(
        (
            f"<!-- Written by `make reliability`: seed {seed}. -->\n",
            table(("situation", "promise"), groups[0]),
            "Commands stopped at random moments, by SIGKILL, SIGTERM and Ctrl-C in turns, and then run again "
            "(`demo`: killed once; its preparation must end too):\n",
            table(("command", "signals", "promise"), groups[1]),
            f"{arguments.mutants} damaged files of each format: none may take more than {fuzz.SECONDS} s, the process "
            f"more than {fuzz.BYTES / 1e6:.0f} MB (it begins with what JAX takes), or write anything:\n",
            table(("format", "refused in one line", "read", "slowest, s", "peak, MB", "promise"), rest[: len(formats)]),
            "Tests of the suite that hold the other promises:\n",
            table(("situation", "tests", "promise"), rest[len(formats) :]),
        )
    )
    output = arguments.output or ("" if arguments.only else str(OUTPUT))
    if output:
        pathlib.Path(output).write_text(text)
    broken = [row for row in rows if "**broken**" in row[-1]]
    print(f"{len(rows) - len(broken)} of {len(rows)} kept in {time.monotonic() - began:.0f} s; {folder}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
