"""Speed and memory of `launch.py predict`.

    python -m benchmarks.predict speed --source=CLIPS [--workdir=RUN] [--detector_model=YUNET.onnx] [--fer=PYTHON]
    python -m benchmarks.predict memory --source=CLIPS --minutes=60 [--workdir=RUN]

`speed` runs every clip through a fusion run: by default untrained networks of the demo's size with the compact student,
since speed does not depend on the weights. It prints frames per second of the analysis, and of everything including
overlay and page, without compilation; and processor milliseconds per frame, which other work on the machine hardly
changes. With `--fer`, a Python that has PyPI `fer`, it runs the same clips through that package in alternation.

`memory` joins the clips into one long film and prints the resident memory during its analysis.
"""

import argparse
import json
import logging
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import av

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

PEER = ROOT / "benchmarks/peers/fer_frames.py"


def clips(source: str) -> list[pathlib.Path]:
    """The clips below a folder."""
    from avemo.predict import recording

    return recording.find(pathlib.Path(source))


def untrained(folder: pathlib.Path, detector_model: str | None) -> str:
    """A fusion run of untrained networks: compact student at 80 px, VGGish at an eighth of its width, GRU of 64."""
    from helpers import tiny_runs

    faces = {"detector": "yunet", "detector_model": detector_model} if detector_model else {"detector": "haar"}
    visual = tiny_runs.visual(folder / "visual", image_size=80, width=1.0)
    audio = tiny_runs.audio(folder / "audio", width=0.125, fc_dim=256)
    sizes = {"fusion": "model_level", "fusion_args": {"features": 64}, "temporal_args": {"features": 64}}
    return tiny_runs.fusion(folder / "fusion", visual, audio, faces, **sizes)


def speed(arguments: argparse.Namespace, run: str, scratch: pathlib.Path) -> dict[str, float]:
    """Speed of the analysis, of everything, and of live prediction."""
    from avemo import predict
    from avemo.predict import recording

    models = predict.open_models(run)
    paths = clips(arguments.source)[: arguments.clips]
    predict.analyse(models, recording.probe(paths[0]))  # compiles
    out: dict[str, float] = {"clips": len(paths), "cores": os.cpu_count() or 1, "load_before": os.getloadavg()[0]}
    peer = Peer(arguments.fer) if arguments.fer else None
    spent = busy = seconds = 0.0
    frames = 0
    for path in paths:  # ours and fer alternate, so that other work on the machine slows both alike
        began, began_busy = time.perf_counter(), time.process_time()
        trace = predict.analyse(models, recording.probe(path))
        spent, busy = spent + time.perf_counter() - began, busy + time.process_time() - began_busy
        frames, seconds = frames + len(trace), seconds + float(trace.time[-1]) + 1 / trace.fps
        if peer:
            peer.run(path)
    out |= {"frames": frames, "analysis_fps": frames / spent, "analysis_times_real_time": seconds / spent}
    out["analysis_processor_ms_per_frame"] = 1000 * busy / frames
    if peer:
        out |= peer.result()
        out["analysis_over_fer"] = out["analysis_fps"] / out["fer_fps"]
    began, busy = time.perf_counter(), time.process_time()
    for number, path in enumerate(paths):
        predict.predict_file(models, path, scratch / str(number))
    spent, busy = time.perf_counter() - began, time.process_time() - busy
    out |= {"everything_fps": frames / spent, "everything_times_real_time": seconds / spent}
    out["everything_processor_ms_per_frame"] = 1000 * busy / frames
    latencies = live(run, paths[0])
    out |= {f"live_latency_{name}_ms": 1000 * value for name, value in latencies.items()}
    return out


class Peer:
    """PyPI `fer` in another Python, one clip at a time."""

    def __init__(self, python: str):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [python, str(PEER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self._sums = [0.0, 0.0, 0.0]
        self._answer()

    def _answer(self) -> str:
        line = self._answers.readline()
        if not line:
            raise SystemExit(f"{PEER.name} ended: --fer must be a Python with requirements-peers*.txt installed.")
        return line

    def run(self, path: pathlib.Path) -> None:
        """Runs one clip through it."""
        print(path, file=self._questions, flush=True)
        self._sums = [a + float(b) for a, b in zip(self._sums, self._answer().split(), strict=True)]

    def result(self) -> dict[str, float]:
        """Ends it; returns frames per second of `detect_emotions` and the share of frames in which it saw a face."""
        self._questions.close()
        self._process.wait(20)
        frames, seconds, faces = self._sums
        return {"fer_fps": frames / seconds, "fer_faces": faces / frames}


def live(run: str, path: pathlib.Path) -> dict[str, float]:
    """Latency of a frame through `Predictor` after compilation."""
    from avemo import predict
    from media import video

    with predict.Predictor(run, causal=True, sound=False) as predictor:
        frames = list(video.decode(path))
        for frame in frames[:3]:
            predictor.push(frame.image, frame.time)
        times = []
        for frame in frames[3:]:
            began = time.perf_counter()
            predictor.push(frame.image, frame.time)
            times.append(time.perf_counter() - began)
    times.sort()
    return {"median": statistics.median(times), "p95": times[int(0.95 * len(times))]}


def join(paths: list[pathlib.Path], minutes: float, target: pathlib.Path) -> float:
    """Writes the clips one after another, repeatedly, as H.264 and AAC; returns the seconds written."""
    pictures, sounds = [], []
    for path in paths[:8]:
        with av.open(str(path)) as container:
            pictures += [frame.reformat(format="yuv420p").to_ndarray() for frame in container.decode(video=0)]
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
            sounds += [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    total, rate = round(minutes * 60 * 25), 25
    with av.open(str(target), "w") as out:
        picture = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "24"})
        picture.height, picture.width = pictures[0].shape[0] * 2 // 3, pictures[0].shape[1]
        picture.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=16000, layout="mono")
        samples, block = 0, 0
        for number in range(total):
            frame = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], format="yuv420p")
            frame.pts = number
            out.mux(picture.encode(frame))
            while samples < (number + 1) / rate * 16000:
                piece = sounds[block % len(sounds)]
                piece.pts = samples
                out.mux(sound.encode(piece))
                samples, block = samples + piece.samples, block + 1
        out.mux(picture.encode(None))
        out.mux(sound.encode(None))
    return total / rate


def resident() -> float:
    """Resident memory of this process, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def memory(arguments: argparse.Namespace, run: str, scratch: pathlib.Path) -> dict[str, object]:
    """Resident memory at each tenth of a long film."""
    from avemo import predict
    from avemo.predict import recording

    film = scratch / "film.mp4"
    length = join(clips(arguments.source), arguments.minutes, film)
    models = predict.open_models(run)
    marks: dict[str, float] = {}
    began = time.perf_counter()

    def note(seconds: float) -> None:
        share = round(10 * seconds / length) / 10
        marks.setdefault(f"{share:.1f}", round(resident(), 1))

    trace = predict.analyse(models, recording.probe(film), progress=note)
    analysed = time.perf_counter() - began
    out: dict[str, object] = {"minutes": length / 60, "frames": len(trace), "resident_mb": marks}
    out["analysis_times_real_time"] = length / analysed
    if arguments.everything:
        predict.predict_file(models, film, scratch / "out")
        out["everything_seconds"] = time.perf_counter() - began - analysed
    out["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("--source", required=True, help="folder of clips")
    parser.add_argument("--workdir", help="a fusion run (default: untrained networks)")
    parser.add_argument("--detector_model", help="YuNet weights, with untrained networks (default: Haar cascade)")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--fer", help="a Python interpreter that has PyPI fer")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--everything", action="store_true", help="memory: include overlay and page")
    arguments = parser.parse_args()
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        run = arguments.workdir or untrained(scratch / "runs", arguments.detector_model)
        print(json.dumps({"speed": speed, "memory": memory}[arguments.what](arguments, run, scratch), indent=2))


if __name__ == "__main__":
    main()
