"""Runs the portable tests on every Python found, with the oldest and newest releases that the requirements allow.

    python -m benchmarks.matrix [--python=3.13] [--set=newest] [--all] [--output=docs/tables/matrix.md]

Each pair has an environment of its own in `.matrix/`, resolved by uv: "oldest" is the lowest release that the ranges in
requirements.txt allow and that has a wheel for this Python; "newest" is the newest that exists today. "colab" begins
with what Colab and Kaggle ship (jax 0.7.2, flax 0.11.2, NumPy 2 and OpenCV 5) and installs the project beside it by
pip, which must change none of them; there both notebooks are executed too. The tests are those marked `portable`;
`--all` runs the whole fast suite.

A pair that passed is not run again until the project, its tests or its requirements change. The exit status is 1 if a
test fails anywhere.
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SETS = ("oldest", "newest", "colab")
# Packages that must stay: an accelerator's plugin works only with the JAX that it was built for.
COLAB = ("jax==0.7.2", "jaxlib==0.7.2", "flax==0.11.2", "numpy==2.*", "opencv-python==5.*")
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "psutil>=6", "nbclient", "ipykernel")
SHOWN = ("jax", "flax", "numpy", "opencv", "av", "librosa", "orbax-checkpoint", "grain")
PACKAGES = ("avemo", "configs", "data_prep", "media")
WHEELS = ("--only-binary", ":all:", "--no-binary", "promise")  # tensorflow-datasets needs `promise`, which has no wheel


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of the table.

    Attributes:
      python, kind: the interpreter and the set of releases.
      versions: of the packages in `SHOWN`.
      text: what pytest said last, or why nothing ran.
      good: whether every test passed.
      kept: whether it was found, and not run now.
    """

    python: str
    kind: str
    versions: tuple[str, ...]
    text: str
    good: bool
    kept: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """How the pairs are run.

    Attributes:
      folder: where the environments are.
      whole: the whole fast suite, not only the portable tests.
      workers: processes that run the tests of a pair.
      minutes: after which the tests of a pair are ended.
    """

    folder: pathlib.Path
    whole: bool = False
    workers: int = 2
    minutes: float = 60.0


class NoEnvironment(Exception):
    """An environment cannot be made, or making it changed what must stay."""


def interpreters() -> dict[str, pathlib.Path]:
    """The Pythons of `PYTHONS` on the PATH and under pyenv, newest patch release first."""
    found: dict[str, pathlib.Path] = {}
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        candidates = sorted(pyenv.glob(f"{version}.*/bin/python"), key=_patch, reverse=True)
        on_path = shutil.which(f"python{version}")
        for path in (*candidates, *([pathlib.Path(on_path)] if on_path else [])):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            if said.startswith(f"Python {version}."):
                found[version] = path
                break
    return found


def _patch(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.parents[1].name))


def _run(*command: str | os.PathLike) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NoEnvironment(" ".join(ran.stderr.split())[-300:])
    return ran.stdout


def _uv(folder: pathlib.Path) -> pathlib.Path:
    uv = folder / "uv" / "bin" / "uv"
    if not uv.exists():
        _run(sys.executable, "-m", "venv", folder / "uv")
        _run(uv.parent / "pip", "install", "--quiet", "--disable-pip-version-check", "uv")
    return uv


def _digest(*names: str) -> str:
    """SHA-256 of the files named, and of the Python, text, page and model files in the folders named."""
    digest = hashlib.sha256()
    for name in names:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*.*") if "__pycache__" not in p.parts):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _environment(interpreter: pathlib.Path, kind: str, pair: pathlib.Path) -> None:
    """Makes the environment `pair` unless it is there, complete, and made from these requirements."""
    ready, key = pair / "ready", _digest("requirements.txt", "requirements-core.txt") + "".join(COLAB)
    if ready.exists() and ready.read_text() == key:
        return
    uv, python = _uv(pair.parent), pair / "bin" / "python"
    _run(uv, "venv", "--quiet", "--seed", "--clear", "--python", interpreter, pair)
    install = (uv, "pip", "install", "--quiet", "--python", python, *WHEELS)
    if kind == "colab":
        _run(*install, *COLAB)
        before = installed(python)
        pip_install(python)
        after = installed(python)
        changed = [f"{name} {before[name]} -> {after.get(name)}" for name in before if after.get(name) != before[name]]
        if brought := sorted(name for name in after if name.startswith("opencv") and name not in before):
            changed.append(f"{' and '.join(brought)} beside the OpenCV that was there")
        if changed:
            raise NoEnvironment(f"`pip install avemo` changed {', '.join(changed)}")
        _run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "avemo")  # the tests run on the project's folder
        _run(*install, *TOOLS)
    else:
        lowest = ("--resolution", "lowest-direct") if kind == "oldest" else ()
        _run(*install, *lowest, "-r", ROOT / "requirements.txt", *TOOLS)
    ready.write_text(key)


def pip_install(python: pathlib.Path) -> None:
    """Runs `pip install` on a copy of the project, whose own folder stays clean."""
    with tempfile.TemporaryDirectory() as copy:
        for name in PACKAGES:
            shutil.copytree(ROOT / name, pathlib.Path(copy, name), ignore=shutil.ignore_patterns("__pycache__"))
        for file in (
            "launch.py",
            "pyproject.toml",
            "README.md",
            *(path.name for path in ROOT.glob("requirements*.txt")),
        ):
            shutil.copy(ROOT / file, copy)
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", copy)


def installed(python: pathlib.Path) -> dict[str, str]:
    """The version of every distribution in an environment, by its name."""
    found = _run(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=json")
    return {one["name"].lower().replace("_", "-"): one["version"] for one in json.loads(found)}


def _versions(python: pathlib.Path) -> tuple[str, ...]:
    found = installed(python)
    opencv = next((version for name, version in found.items() if name.startswith("opencv")), "")
    return tuple(opencv if name == "opencv" else found.get(name, "") for name in SHOWN)


def _tests(pair: pathlib.Path, kind: str, options: Options) -> tuple[str, bool]:
    """Runs the tests in an environment; returns pytest's last line, and whether all passed."""
    portable = "portable" if kind == "colab" else "portable and not slow"  # the slow ones are the notebooks
    marker = "not slow" if options.whole else portable
    command = [pair / "bin" / "python", "-m", "pytest", "-q", "-m", marker, "--dist", "loadfile"]
    with (pair / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, "-n", str(options.workers)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            process.wait(options.minutes * 60)
        except subprocess.TimeoutExpired:
            return f"the tests did not end within {options.minutes:g} minutes", False
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = (pair / "log.txt").read_text().strip().splitlines() or ["nothing ran"]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(f"  {line}", file=sys.stderr)
    return summary(lines), process.returncode == 0


def summary(lines: Sequence[str]) -> str:
    """Pytest's count of the tests, without its seconds. It need not be the last line: libraries print at exit."""
    counts = [
        line for line in lines if re.search(r"\d+ (passed|failed|errors?|skipped|deselected)\b.* in [\d.]+s", line)
    ]
    return re.sub(r" in [\d.]+s.*", "", (counts or lines)[-1].strip("= "))


def _places(python: str, kind: str, options: Options) -> tuple[pathlib.Path, pathlib.Path]:
    """The environment of a pair, and the file that says how its tests passed."""
    pair = options.folder / f"{python}-{kind}"
    return pair, pair / ("all.json" if options.whole else "portable.json")


def _project() -> str:
    return _digest(*PACKAGES, "tests", "notebooks", "launch.py", "pyproject.toml")


def remembered(python: str, kind: str, options: Options) -> Outcome:
    """How the tests of a pair passed when they last did; nothing is run."""
    pair, kept = _places(python, kind, options)
    if not kept.exists():
        ready = (pair / "ready").exists()
        versions = _versions(pair / "bin" / "python") if ready else ("",) * len(SHOWN)
        unchanged = "`pip install` of avemo changed nothing; " if ready and kind == "colab" else ""
        return Outcome(python, kind, versions, f"{unchanged}tests not run to their end, or not passed, yet", True)
    before = json.loads(kept.read_text())
    earlier = "" if before["key"]["project"] == _project() else "an earlier state of the project: "
    return Outcome(python, kind, tuple(before["key"]["versions"]), earlier + before["text"], True, kept=True)


def outcome(python: str, interpreter: pathlib.Path, kind: str, options: Options) -> Outcome:
    """Makes the environment of a pair, if need be, and runs the tests in it, unless they passed before."""
    pair, kept = _places(python, kind, options)
    try:
        _environment(interpreter, kind, pair)
    except NoEnvironment as error:
        return Outcome(python, kind, ("",) * len(SHOWN), str(error), False)
    versions = _versions(pair / "bin" / "python")
    key = {"project": _project(), "versions": list(versions)}
    before = json.loads(kept.read_text()) if kept.exists() else {}
    if before.get("key") == key:
        return Outcome(python, kind, versions, before["text"], True, kept=True)
    text, good = _tests(pair, kind, options)
    text = f"`pip install` of avemo changed nothing; {text}" if kind == "colab" else text
    if good:
        kept.write_text(json.dumps({"key": key, "text": text}))
    return Outcome(python, kind, versions, text, good)


def locked(folder: pathlib.Path) -> tuple[str, bool]:
    """A line that says on which Pythons requirements.lock can be installed, and whether on all; no Python is needed."""
    failed = []
    for python in PYTHONS:
        try:
            lock = ROOT / "requirements.lock"
            _run(_uv(folder), "pip", "compile", "--quiet", "--python-version", python, *WHEELS, lock)
        except NoEnvironment as error:
            failed.append(f"**not on {python}: {error}**")
    good = [python for python in PYTHONS if not any(line.startswith(f"**not on {python}:") for line in failed)]
    return "; ".join([f"requirements.lock has wheels for Python {', '.join(good)}", *failed]) + ".", not failed


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    head = ("Python", "releases", *SHOWN, "tests")
    rows = [(o.python, o.kind, *o.versions, o.text if o.good else f"**{o.text}**") for o in outcomes]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)) + "\n"


def page(outcomes: Sequence[Outcome], lock: str, whole: bool) -> str:
    """The table as a page of the documentation."""
    paragraphs = (__doc__ or "").split("\n\n")
    command = f"python -m benchmarks.matrix{' --all' if whole else ''}"
    made = f"`{command}` made this table on {datetime.date.today()}, on {platform.system()} {platform.machine()}."
    title = "# Python and library releases: what was tested"
    return f"{title}\n\n{made} {paragraphs[2]}\n\n{table(outcomes)}\n{lock}\n"


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and writes it if asked; returns 1 if a test fails or an environment cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--python", action="append", choices=PYTHONS, help="one Python (default: all that are found)")
    parser.add_argument("--set", action="append", choices=SETS, help="one set of releases (default: all)")
    parser.add_argument("--all", action="store_true", help="the whole fast suite, not only the portable tests")
    parser.add_argument("--table", action="store_true", help="run nothing: show what passed before")
    parser.add_argument("--workers", type=int, default=2, help="processes that run tests (default: 2)")
    parser.add_argument("--minutes", type=float, default=60.0, help="end a pair's tests after so long (default: 60)")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / ".matrix", help="folder for the environments")
    parser.add_argument("--output", type=pathlib.Path, help="file for the table, written after every pair")
    arguments = parser.parse_args(argv)
    options = Options(arguments.folder.absolute(), arguments.all, arguments.workers, arguments.minutes)
    found, outcomes = interpreters(), []
    lock, installs = locked(options.folder)
    print(lock, file=sys.stderr)
    for python in arguments.python or PYTHONS:
        for kind in arguments.set or SETS:
            began = time.time()
            if arguments.table and python in found:
                made = remembered(python, kind, options)
            elif python in found:
                made = outcome(python, found[python], kind, options)
            else:
                made = Outcome(python, kind, ("",) * len(SHOWN), "not run: no such Python on this machine", True)
            seconds = "as before" if made.kept else f"{time.time() - began:.0f} s"
            print(f"{made.python} {made.kind}: {made.text} ({seconds})", file=sys.stderr, flush=True)
            outcomes.append(made)
            if arguments.output:
                arguments.output.write_text(page(outcomes, lock, options.whole))
    print(table(outcomes))
    return int(not (installs and all(made.good for made in outcomes)))


if __name__ == "__main__":
    sys.exit(main())
