"""Speed and memory of the preparation, per second of processor time (so that a busy machine does not matter much).

    python benchmarks/preparation.py --source=../shared/data [--detector=yunet --detector_model=FILE] [--detect_every=5]

Prints one JSON object: for each folder of videos the factor over real time of one core (decode, detect, crop, log-mel,
serialise), for FER+ the images a second of one core, and the largest resident memory of the process in MB.
"""

import argparse
import json
import pathlib
import resource
import tempfile
import time

import cv2

from data_prep import preload, video, work
from data_prep.corpora import CORPORA
from data_prep.corpora.own import Options as ClipOptions


def videos(folder: pathlib.Path, limit: int, **options) -> dict[str, float]:
    corpus = CORPORA["own"](folder, ClipOptions(**options))
    items = list(corpus.items())[:limit]
    seconds = 0.0
    for item in items:
        frames = list(video.decode(item.payload["path"]))
        seconds += len(frames) / video.probe(item.payload["path"]).fps
    with tempfile.TemporaryDirectory() as spool:
        work.run_task(corpus, items[:1], f"{spool}/warm")
        wall, busy = time.perf_counter(), time.process_time()
        work.run_task(corpus, items, f"{spool}/a")
        busy, wall = time.process_time() - busy, time.perf_counter() - wall
    return {"video_seconds": round(seconds, 1), "real_time_per_core": round(seconds / busy, 1), "wall": round(wall, 1)}


def pictures(folder: pathlib.Path, limit: int) -> dict[str, float]:
    corpus = CORPORA["fer"](folder, CORPORA["fer"].Options())
    items = list(corpus.items())[:limit]
    with tempfile.TemporaryDirectory() as spool:
        work.run_task(corpus, items[:10], f"{spool}/warm")
        busy = time.process_time()
        work.run_task(corpus, items, f"{spool}/a")
        busy = time.process_time() - busy
    return {"images": len(items), "images_per_second_per_core": round(len(items) / busy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--detector", default="haar")
    parser.add_argument("--detector_model", default="")
    parser.add_argument("--detect_every", type=int, default=5)
    parser.add_argument("--limit", type=int, default=8)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    assert preload  # imports everything before the clock starts
    options = {key: getattr(arguments, key) for key in ("detector", "detector_model", "detect_every")}
    out = {"options": options}
    for name in ("grid", "ravdess_clips"):
        if (arguments.source / name).is_dir():
            out[name] = videos(arguments.source / name, arguments.limit, **options)
    if (arguments.source / "ferplus").is_dir():
        out["ferplus"] = pictures(arguments.source / "ferplus", 400 * arguments.limit)
    out["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
