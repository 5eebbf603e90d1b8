"""Runs the portable tests on every Python found, with the oldest and newest releases that the requirements allow.

    python -m benchmarks.matrix [--python=3.13] [--set=newest] [--all] [--output=docs/tables/matrix.md]

Each pair has an environment of its own in `.matrix/`, resolved by uv: "oldest" is the lowest release that the ranges in
requirements.txt allow and that has a wheel for this Python; "newest" is the newest that exists today. "colab" is
what Colab and Kaggle ship: jax 0.7.2, flax 0.11.2 and OpenCV 5, with the newest of everything else. The tests are those
marked `portable`; `--all` runs the whole fast suite. The exit status is 1 if a test fails anywhere.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
COLAB = ("jax==0.7.2", "flax==0.11.2", "opencv-python-headless==5.*")
SETS = {"oldest": ("--resolution=lowest-direct",), "newest": (), "colab": COLAB}
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "psutil>=6", "nbclient", "ipykernel")
SHOWN = ("jax", "flax", "numpy", "opencv-python-headless", "av", "librosa", "orbax-checkpoint", "grain")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of the table.

    Attributes:
      python, kind: the interpreter and the set of releases.
      versions: of the packages in `SHOWN`.
      text: what pytest said last, or why nothing ran.
      good: whether every test passed.
    """

    python: str
    kind: str
    versions: tuple[str, ...]
    text: str
    good: bool


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


def _uv() -> pathlib.Path:
    uv = FOLDER / "uv" / "bin" / "uv"
    if not uv.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "uv"], check=True)
        subprocess.run([uv.parent / "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
    return uv


def _environment(python: str, interpreter: pathlib.Path, kind: str) -> pathlib.Path | str:
    """The environment of a pair, or why it cannot be made."""
    uv, folder = _uv(), FOLDER / f"{python}-{kind}"
    if not (folder / "ready").exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", interpreter, folder], check=True)
        # tensorflow-datasets needs `promise`, which has no wheel.
        wheels = ("--only-binary", ":all:", "--no-binary", "promise")
        command = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *wheels]
        made = subprocess.run(
            [*command, *SETS[kind], "-r", ROOT / "requirements.txt", *TOOLS],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            return " ".join(made.stderr.split())[:200]
        (folder / "ready").touch()
    return folder


def _versions(folder: pathlib.Path) -> tuple[str, ...]:
    code = f"import importlib.metadata as m; print(*map(m.version, {SHOWN!r}))"
    ran = subprocess.run([folder / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    return tuple(ran.stdout.split())


def outcome(python: str, interpreter: pathlib.Path, kind: str, whole: bool) -> Outcome:
    """Makes the environment of a pair, if need be, and runs the tests in it."""
    folder = _environment(python, interpreter, kind)
    if isinstance(folder, str):
        return Outcome(python, kind, ("",) * len(SHOWN), f"no environment: {folder}", False)
    began = time.time()
    marker = "not slow" if whole else "portable and not slow"
    ran = subprocess.run(
        [folder / "bin" / "python", "-m", "pytest", "-q", "-m", marker, "-n", "2", "--dist", "loadfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "log.txt").write_text(ran.stdout + ran.stderr)
    lines = ran.stdout.strip().splitlines() or ["nothing ran"]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(f"  {line}", file=sys.stderr)
    said = re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= "))
    return Outcome(python, kind, _versions(folder), f"{said}; {time.time() - began:.0f} s", ran.returncode == 0)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    head = ("Python", "releases", *SHOWN, "tests")
    rows = [(o.python, o.kind, *o.versions, o.text if o.good else f"**{o.text}**") for o in outcomes]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Prints the table, and writes it if asked; returns 1 if a test fails or an environment cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--python", action="append", choices=PYTHONS, help="one Python (default: all that are found)")
    parser.add_argument("--set", action="append", choices=SETS, help="one set of releases (default: all)")
    parser.add_argument("--all", action="store_true", help="the whole fast suite, not only the portable tests")
    parser.add_argument("--output", type=pathlib.Path, help="file for the table")
    arguments = parser.parse_args(argv)
    found, outcomes = interpreters(), []
    for python in arguments.python or PYTHONS:
        for kind in arguments.set or SETS:
            if python in found:
                made = outcome(python, found[python], kind, arguments.all)
            else:
                made = Outcome(python, kind, ("",) * len(SHOWN), "not run: no such Python on this machine", True)
            print(f"{made.python} {made.kind}: {made.text}", file=sys.stderr, flush=True)
            outcomes.append(made)
    print(table(outcomes))
    if arguments.output:
        arguments.output.write_text(
            "# Python and library releases: what was tested\n\n`make matrix` made this table; "
            + (__doc__ or "").split("\n\n")[2]
            + "\n\n"
            + table(outcomes)
        )
    return int(not all(made.good for made in outcomes))


if __name__ == "__main__":
    sys.exit(main())
