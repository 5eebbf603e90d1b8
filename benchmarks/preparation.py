"""Speed and memory of data preparation, measured through the user's command.

    python -m benchmarks.preparation --source=../shared/data [--detector=yunet --detector_model=FILE --detect_every=1]
    python -m benchmarks.preparation --source=../shared/data --minutes=60 [--detect_every=25]

Prints one JSON object. For each folder of videos, it gives the speed over real time of `python -m data_prep own
--workers=N` from start to end (decode, detect, crop, log-mel, shards, card; the clips are repeated until there is
enough to do), and that of the work alone on one core, per second of processor time, which other work on the machine
affects less. For FER+ it gives the same in images per second. With `--minutes` it gives instead the peak resident
memory of preparing one video of that length, made of GRID clips, and of one a tenth as long.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from data_prep import forkserver_preload, task_runner
from data_prep.corpora import CORPORA
from data_prep.corpora.own import Options as ClipOptions
from media import audio, video

ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(
    corpus: str, source: pathlib.Path, output: pathlib.Path, workers: int, **options: Any
) -> tuple[float, dict]:
    """Runs the command; returns its wall-clock seconds and the card it wrote."""
    flags = [f"--{key}={value}" for key, value in options.items()]
    line = [sys.executable, "-m", "data_prep", corpus, f"--source={source.resolve()}", f"--output={output}", "--quiet"]
    began = time.perf_counter()
    subprocess.run([*line, f"--workers={workers}", *flags], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return seconds, json.loads(next(output.glob("*/*/card.json")).read_text())


def one_core(corpus: Any, items: Sequence[Any]) -> float:
    """Processor seconds of the work on the items."""
    with tempfile.TemporaryDirectory() as spool:
        task_runner.run_task(corpus, items[:1], f"{spool}/warm")
        began = time.process_time()
        task_runner.run_task(corpus, items, f"{spool}/a")
        return time.process_time() - began


def seconds_of(path: pathlib.Path) -> float:
    """Length of a video."""
    return sum(1 for _ in video.decode(path)) / video.probe(path).fps


def videos(folder: pathlib.Path, least: float, workers: int, **options: Any) -> dict[str, float]:
    """Speed of preparing a folder of videos, repeated up to `least` seconds."""
    corpus = CORPORA["own"](folder, ClipOptions(**options))
    items = list(corpus.items())
    lengths = [seconds_of(item.payload["path"]) for item in items]
    few = items[:6]
    busy = one_core(corpus, few)
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch, "source")
        copies = max(1, round(least / sum(lengths)))
        for copy in range(copies):
            shutil.copytree(folder, source / str(copy), ignore=shutil.ignore_patterns("*.md"))
        wall, _ = command("own", source, pathlib.Path(scratch, "out"), workers, **options)
    return {
        "clips": copies * len(items),
        "video_seconds": round(copies * sum(lengths), 1),
        "command_seconds": round(wall, 1),
        "command_times_real_time": round(copies * sum(lengths) / wall, 1),
        "one_core_times_real_time": round(sum(lengths[: len(few)]) / busy, 1),
    }


def pictures(folder: pathlib.Path, workers: int) -> dict[str, float]:
    """Speed of preparing FER+."""
    corpus = CORPORA["fer"](folder, CORPORA["fer"].Options())
    items = list(corpus.items())
    few = items[:4000]
    busy = one_core(corpus, few)
    with tempfile.TemporaryDirectory() as scratch:
        wall, card = command("fer", folder, pathlib.Path(scratch, "out"), workers)
        start, _ = command("fer", folder, pathlib.Path(scratch, "few"), workers, max_items=2 * corpus.chunk)
    return {
        "images": card["items"],
        "command_seconds": round(wall, 2),
        "command_images_per_second": round(card["items"] / wall),
        # Start-up is the time of a run of four tasks: imports, reading the tables, starting the processes.
        "start_up_seconds": round(start, 2),
        "images_per_second_after_start_up": round((card["items"] - 4 * corpus.chunk) / (wall - start)),
        "one_core_images_per_second": round(len(few) / busy),
    }


def long_video(clips: list[pathlib.Path], minutes: float, target: pathlib.Path) -> float:
    """Encodes the clips once and repeats the packets with increasing times; returns the seconds written."""
    with av.open(str(target), "w") as out:
        picture = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20", "bf": "0"})
        sound = out.add_stream("aac", rate=16000, layout="mono")
        picture.width, picture.height, picture.pix_fmt = 360, 288, "yuv420p"
        packets: list[Any] = []
        frames, samples = 0, []
        for clip in clips:
            for frame in video.decode(clip):
                one = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
                one.pts, one.time_base = frames, Fraction(1, 25)
                packets += picture.encode(one)
                frames += 1
            samples += [block for _, block in audio.decode(clip)]
        packets += picture.encode(None)
        heard = np.concatenate(samples)[: 640 * frames]
        for begin in range(0, len(heard) - 1023, 1024):
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(heard[None, begin : begin + 1024]), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 16000, begin, Fraction(1, 16000)
            packets += sound.encode(block)
        packets += sound.encode(None)
        timed = sorted(
            ((float(p.pts * p.time_base), bytes(p), p.time_base, p.is_keyframe, p.stream) for p in packets),
            key=lambda packet: packet[0],
        )
        seconds, start = frames / 25, 0.0
        while start < 60 * minutes:
            for time_of, data, base, key, stream in timed:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, key
                packet.pts = packet.dts = round((start + time_of) / base)
                out.mux(packet)
            start += seconds
    return start


def memory(folder: pathlib.Path, minutes: float, **options: Any) -> dict[str, Any]:
    """Peak memory of preparing one long video, and one a tenth as long."""
    clips = sorted(folder.glob("*.mpg"))[:10]
    out = {}
    with tempfile.TemporaryDirectory() as scratch:
        # The short video goes first, because ru_maxrss is the largest of all children so far.
        for number, length in enumerate((minutes / 10, minutes)):
            source = pathlib.Path(scratch, str(number))
            source.mkdir()
            seconds = long_video(clips, length, source / "long.mkv")
            wall, card = command("own", source, pathlib.Path(scratch, f"out{number}"), 1, **options)
            shutil.rmtree(pathlib.Path(scratch, f"out{number}"))
            out[f"{length:g}_minutes"] = {
                "video_seconds": round(seconds),
                "frames": card["splits"]["test"]["counts"]["frames"],
                "times_real_time": round(seconds / wall, 1),
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
            }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--detector", default="haar")
    parser.add_argument("--detector_model", default="")
    parser.add_argument("--detect_every", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--video_seconds", type=float, default=120, help="repeat the clips up to this length")
    parser.add_argument("--minutes", type=float, default=0, help="measure memory on a video of that length instead")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    assert forkserver_preload  # imports everything before the clock starts
    options = {key: getattr(arguments, key) for key in ("detector", "detector_model", "detect_every")}
    if options["detector_model"]:
        options["detector_model"] = str(pathlib.Path(options["detector_model"]).resolve())
    out = {"workers": arguments.workers, "options": options}
    if arguments.minutes:
        out["memory"] = memory(arguments.source / "grid", arguments.minutes, **options)
    else:
        for name in ("grid", "ravdess_clips"):
            if (arguments.source / name).is_dir():
                folder = arguments.source / name
                out[name] = videos(folder, arguments.video_seconds, arguments.workers, **options)
        if (arguments.source / "ferplus").is_dir():
            out["ferplus"] = pictures(arguments.source / "ferplus", arguments.workers)
    out["peak_memory_mb"] = max(
        resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
