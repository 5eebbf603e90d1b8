"""Situations: each breaks something and says what went wrong, or nothing."""

import hashlib
import json
import os
import pathlib
import socket
import zipfile
from collections.abc import Callable

import numpy as np

from benchmarks import chaos
from benchmarks.reliability.world import Done, World

Situation = Callable[[World], str]
SITUATIONS: dict[str, Situation] = {}


def situation(title: str) -> Callable[[Situation], Situation]:
    """Enters a function in the table under a title."""

    def enter(function: Situation) -> Situation:
        SITUATIONS[title] = function
        return function

    return enter


def flip(path: pathlib.Path, seed: int) -> None:
    """Flips one bit of a file."""
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def first(*problems: str) -> str:
    """The first problem; "" if there is none."""
    return next(filter(None, problems), "")


@situation("release with a planted compiled program: refused, nothing installed")
def planted(world: World) -> str:
    path = world.work / "a.zip"
    with zipfile.ZipFile(world.folder / "a.zip") as whole:
        files = {name: whole.read(name) for name in whole.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    name = "fusion/compilation_cache/jit__outputs-cache"
    manifest["files"][name] = {"sha256": hashlib.sha256(b"code").hexdigest(), "bytes": 4}
    with zipfile.ZipFile(path, "w") as out:
        for each, data in {**files, name: b"code", "manifest.json": json.dumps(manifest)}.items():
            out.writestr(each, data)
    cache = world.work / "cache"
    done = _with_cache(world, cache, "release", f"--install={path}")
    return first(done.refusal(name, "which no release has"), "installed" if list(cache.glob("[!.]*")) else "")


def _with_cache(world: World, cache: pathlib.Path, *arguments: str) -> Done:
    def call() -> int:
        import launch

        os.environ["AVEMO_CACHE"] = str(cache)
        return launch.main(list(arguments))

    return world.call(call)


@situation("run folder with a `compilation_cache` of somebody else: opened, nothing in it is read or written")
def theirs(world: World) -> str:
    run = world.copy("audio")
    planted = run / "compilation_cache"
    planted.mkdir()
    planted.chmod(0o000)
    own, output = world.work / "own", world.work / "out"

    def call() -> int:
        import jax

        import launch

        os.environ["AVEMO_CACHE"] = str(own)
        jax.config.update("jax_compilation_cache_dir", None)
        status = launch.main(["predict", f"--workdir={run}", f"--input={world.folder / 'a.mp4'}", f"--output={output}"])
        print(jax.config.jax_compilation_cache_dir)
        return status

    done = world.call(call)
    mode = (own / ".compiled").stat().st_mode & 0o777 if (own / ".compiled").exists() else 0
    return first(
        ""
        if done.status == 0 and done.lines[-1] == str(own / ".compiled")
        else f"status {done.status}: {done.text[-300:]}",
        "" if mode == 0o700 else f"the private folder has mode {mode:o}",
        "something was written" if list(planted.iterdir()) else "",
    )


@situation("one flipped bit in a checkpoint, 40 times: never opened with other weights")
def flipped(world: World) -> str:
    run = world.copy("trained")
    folder = run / "checkpoints" / "4"
    files = [
        path for item in ("state", "data", "config") for path in sorted((folder / item).rglob("*")) if path.is_file()
    ]

    def call() -> int:
        from avemo.runs import checkpoints
        from media.errors import UserError

        silent = 0
        for seed in range(40):
            path = files[seed % len(files)]
            whole = path.read_bytes()
            flip(path, seed)
            try:
                checkpoints.load(run, "latest")
                silent += 1
            except UserError:
                pass
            path.write_bytes(whole)
        print(silent)
        return 0

    done = world.call(call)
    return "" if (done.status, done.lines[-1:]) == (0, ["0"]) else f"{done.text[-300:]} of 40 opened"


@situation("latest checkpoint damaged: kept, the one before is used, the run ends")
def one_damaged(world: World) -> str:
    run = world.copy("trained")
    (run / "result.json").unlink()
    flip(next(path for path in sorted((run / "checkpoints/4/state/d").iterdir())), 0)
    done = world.run(*world.train(run))
    return first(
        done.problem(),
        "" if (run / "damaged_checkpoints/4").is_dir() else "the damaged one is gone",
    )


@situation("all checkpoints damaged: one line, nothing deleted")
def all_damaged(world: World) -> str:
    run = world.copy("trained")
    (run / "result.json").unlink()
    for path in (run / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = len(list(run.glob("*checkpoints/**/*")))
    done = world.run(*world.train(run))
    after = len(list(run.glob("*checkpoints/**/*")))
    return first(done.refusal("no checkpoint in", "use a new --workdir"), "" if after >= before else "files are gone")


@situation("torn line in the middle of metrics.jsonl: only that line is lost at resume")
def torn(world: World) -> str:
    run = world.copy("trained")
    (run / "result.json").unlink()
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:20], *lines[4:]]) + "\n")
    done = world.run(*world.train(run))
    kept = len(path.read_text().splitlines())
    return first(done.problem(), "" if kept == len(lines) - 1 else f"{kept} of {len(lines)} lines")


@situation("damaged JSON of a run (config, result, encoders): one line that names the file")
def damaged_json(world: World) -> str:
    read_by = {"config.json": world.copy("fusion"), "result.json": world.copy("visual")}
    read_by["encoders.json"] = read_by["config.json"]
    contents = (b"{", b"\xff\xfe", b"[]", b"[" * 100_000)
    clip, out = world.folder / "a.mp4", world.work / "out"

    def call() -> int:
        import launch

        for name, run in read_by.items():
            whole = (run / name).read_bytes()
            for content in contents:
                (run / name).write_bytes(content)
                if launch.main(["predict", f"--workdir={run}", f"--input={clip}", f"--output={out}"]) != 2:
                    print("not refused")
            (run / name).write_bytes(whole)
        return 0

    done = world.call(call)
    expected = [name for name in read_by for _ in contents]
    wrong = [
        line
        for line, name in zip(done.lines, expected, strict=False)
        if not line.startswith("error: ") or name not in line
    ]
    return first(done.problem(), *wrong, "" if len(done.lines) == len(expected) else f"{len(done.lines)} lines")


def _damaged_clips(world: World) -> tuple[pathlib.Path, pathlib.Path]:
    """A copy of the clips, and its shard of dev."""
    clips = world.copy("clips") / "1.0.0"
    return clips, next(path for path in clips.iterdir() if "dev" in path.name and "record-" in path.name)


@situation("flipped byte in a shard, 20 times: one line with file and record, or the same scores")
def damaged_shard(world: World) -> str:
    clips, shard = _damaged_clips(world)

    def call() -> int:
        from avemo.data import shards
        from media.errors import UserError

        def read() -> list[bytes]:
            source = shards.Shards(clips, "dev")
            return [source[i]["log_mel"].tobytes() + b"".join(source[i]["frames"].encoded) for i in range(len(source))]

        whole, data = read(), shard.read_bytes()
        for seed in range(20):
            flip(shard, seed)
            try:
                if read() != whole:
                    print("other values")
            except UserError as error:
                if shard.name not in str(error):
                    print(error)
            shard.write_bytes(data)
        return 0

    done = world.call(call)
    return done.text[-300:] if done.status or done.text else ""


@situation("deleted shard: one line that names it, not “free some space”")
def deleted_shard(world: World) -> str:
    clips, shard = _damaged_clips(world)
    shard.unlink()
    done = world.run(
        "evaluate", f"--workdir={world.copy('trained')}", f"--data={clips}", f"--output={world.work / 'o'}"
    )
    return first(done.refusal(shard.name, "missing"), "space" if "space" in done.text else "")


@situation("nothing of this machine in exports and traces")
def machine(world: World) -> str:
    run, out = world.copy("fusion"), world.work / "out"
    clip = world.folder / "a.mp4"
    done = [
        world.run("export", f"--workdir={run}", f"--output={out / 'programs'}"),
        world.run(
            "predict", f"--workdir={run}", f"--input={clip}", f"--output={out / 'trace'}", "--files=csv,json,viewer"
        ),
    ]
    words = {str(world.work), str(chaos.ROOT), str(pathlib.Path.home())}
    words |= {socket.gethostname()} if len(socket.gethostname()) > 5 else set()  # a shorter one may be any word
    files = [path for path in out.rglob("*") if path.is_file()]
    found = [f"{path.name}: {word}" for path in files for word in words if word.encode() in path.read_bytes()]
    return first(*(one.problem() for one in done), "nothing written" if len(files) < 6 else "", *found)
