"""Damaged files by the hundred, from fixed seeds: `python -m benchmarks.reliability.fuzz FORMAT [--count=300]`.

Each must be read or refused in one line, within 10 s and 1 GB, and nothing may be written. Prints one JSON object.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

SECONDS, BYTES = 10, 1e9  # the most that one file may take, and the whole process
_NUMBERS = (0, 1, *((1 << bits) - 1 for bits in (7, 8, 15, 16, 31, 32, 63, 64)), 1 << 7, 1 << 31, 1 << 40)


@dataclasses.dataclass
class Outcome:
    """What became of the damaged files of one format.

    Attributes:
      read, refused: how many were read all the same, and how many were refused in one line.
      failed: what else happened, in words.
      seconds: the slowest one.
      megabytes: peak resident memory of the process.
    """

    read: int = 0
    refused: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    megabytes: int = 0

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.failed and self.seconds <= SECONDS and self.megabytes <= BYTES / 1e6


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yields damaged copies: flipped bits, numbers of all sizes, parts cut, doubled, moved."""
    rng = np.random.default_rng(seed)

    def place(size: int = 1) -> int:
        return int(rng.integers(max(1, len(data) - size)))

    for _ in range(count):
        out = bytearray(data)
        kind = rng.integers(6)
        if kind == 0:
            for _ in range(int(rng.integers(1, 9))):
                out[place()] ^= 1 << int(rng.integers(8))
        elif kind in (1, 2):
            size = int(rng.choice([1, 2, 4, 8]))
            at = place(size)
            number = int(_NUMBERS[int(rng.integers(len(_NUMBERS)))]) & ((1 << 8 * size) - 1)
            out[at : at + size] = number.to_bytes(size, "little" if rng.integers(2) else "big")
        elif kind == 3:
            del out[place() :]
        elif kind == 4:
            at, size = place(), int(rng.integers(1, 64))
            out[at : at + size] = bytes(out[at : at + size]) * int(rng.choice([0, 2, 50]))
        else:
            begin, end = place(), place()
            out[end : end + 32] = out[begin : begin + 32]
        yield bytes(out)


def _late(*_: object) -> None:
    raise TimeoutError(f"not finished after {SECONDS} s")


def run(name: str, count: int, seed: int) -> Outcome:
    """Reads `count` damaged files of one format."""
    from benchmarks.reliability.samples import samples
    from media.errors import UserError

    sample, outcome = samples()[name], Outcome()
    signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as folder:
        path = sample.write(pathlib.Path(folder))
        sample.read(path)
        whole = path.read_bytes()
        files = sorted(p.name for p in path.parent.iterdir())
        for number, data in enumerate(
            _inside(whole, count, seed) if name == "archive" else mutants(whole, count, seed)
        ):
            path.write_bytes(data)
            began = time.monotonic()
            signal.alarm(SECONDS)
            try:
                sample.read(path)
                outcome.read += 1
            except UserError as error:
                outcome.refused += 1
                if not str(error).isprintable():
                    outcome.failed.append(f"{number}: more than a line")
            except Exception as error:
                outcome.failed.append(f"{number}: {type(error).__name__}: {error}"[:200])
            finally:
                signal.alarm(0)
            outcome.seconds = max(outcome.seconds, round(time.monotonic() - began, 2))
        if sorted(p.name for p in path.parent.iterdir()) != files:
            outcome.failed.append("files were written")
    outcome.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    return outcome


def _inside(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Damaged archives: half of them damaged outside, half with a valid frame around damaged files and names."""
    import hashlib
    import io

    yield from mutants(whole, count // 2, seed)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    rng = np.random.default_rng(seed)
    odd = [
        "../a",
        "/etc/a",
        "a/compilation_cache/jit",
        "a/b/c",
        "a/config.json\n",
        "a/run.py",
        "a",
        "\x1b[2J/config.json",
    ]
    for data in mutants(files["a/weights.npz"], count - count // 2, seed + 1):
        changed = {**files, "a/weights.npz": data}
        if rng.integers(2):
            changed[odd[int(rng.integers(len(odd)))]] = data
        entries = {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in changed.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in {**changed, "manifest.json": json.dumps({**manifest, "files": entries})}.items():
                out.writestr(name, content)
        yield buffer.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Damages one format in this process; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("format")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    outcome = run(arguments.format, arguments.count, arguments.seed)
    print(json.dumps(dataclasses.asdict(outcome)))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
