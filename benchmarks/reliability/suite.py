"""Promises that tests of the suite hold: rows of the table."""

import dataclasses
import re
import subprocess
import sys

from benchmarks import chaos


@dataclasses.dataclass(frozen=True)
class Promise:
    """A row: what is promised, and the tests that hold it, as arguments of pytest."""

    title: str
    tests: tuple[str, ...]


_PROMISES = (
    Promise(
        "weights that claim more than they hold: strides of 0, nested names, endless numbers, compressed bombs",
        ("tests/avemo/models/test_pretrained_claims.py", "tests/media/test_zip_files.py"),
    ),
    Promise("compiled programs that others can write are not run", ("tests/avemo/runs/test_compilation_cache.py",)),
    Promise("a data set imports no code", ("tests/avemo/data/test_schema.py",)),
    Promise("downloads have one deadline and lead to public addresses", ("tests/media/test_web.py",)),
    Promise("links that are dead, slow or hostile", ("tests/data_prep/test_download.py",)),
    Promise("children end with their parent", ("tests/media/test_processes.py",)),
    Promise(
        "recordings as phones and cameras write them: rotation, flips, pixels, clocks, cut files, several sound tracks",
        (
            "tests/media/test_container.py",
            "tests/media/test_clock.py",
            "tests/media/test_downmix.py",
            "tests/avemo/predict/test_real_files.py",
        ),
    ),
    Promise("pictures that are damaged or claim a size they do not have", ("tests/media/test_images.py",)),
    Promise("file names of every kind; own output is never input", ("tests/media/test_listing.py",)),
    Promise(
        "labels and corpora are checked before they are believed",
        ("tests/data_prep/test_labels.py", "tests/data_prep/test_as_shipped.py"),
    ),
    Promise("two preparations of one data set; one that is killed", ("tests/data_prep/test_survival.py",)),
    Promise("no home, no writable cache", ("tests/media/test_caches.py",)),
    Promise("shards that changed are other data", ("tests/avemo/data/test_fingerprint.py",)),
)
ROWS = tuple(row for row in _PROMISES if all((chaos.ROOT / test).exists() for test in row.tests))


def run(row: Promise) -> tuple[str, ...]:
    """Runs the tests of a row."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        *row.tests,
    ]
    done = subprocess.run(command, cwd=chaos.ROOT, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    passed = re.search(r"(\d+) passed", last)
    state = "kept" if done.returncode == 0 else f"**broken**: {last}"
    return row.title, passed[1] if passed else "0", state
