"""Small files in the exact layouts of the corpora, pitfalls included; all are made here, so no licence is needed."""

import csv
import pathlib
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from media import faces

RATERS_HEADER = "time;FM1 ;FM2 ;FM3 ;FF1 ;FF2 ;FF3"  # RECOLA's files have these trailing spaces


@faces.DETECTORS.register("red")
class RedSquare:
    """A detector for drawn pictures: every red square is a face."""

    def __init__(self, options):
        del options

    def __call__(self, image, smallest=0.0):
        red = ((image[..., 0] > 150) & (image[..., 1] < 100) & (image[..., 2] < 100)).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(red)
        return [
            faces.Face(x + w / 2, y + h / 2, max(w, h), 0.0, 0.9)
            for x, y, w, h, area in stats[1:count]
            if area > 60 and max(w, h) >= smallest
        ]


@pytest.fixture
def red_square():
    """The name of the detector `RedSquare`."""
    return "red"


def picture(square: tuple[int, int, int] | None, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Draws a blue-grey picture uint8 `[H, W, 3]`, with a red square (x, y, side) if given."""
    image = np.full((*size, 3), (60, 90, 120), np.uint8)
    if square is not None:
        x, y, side = square
        image[y : y + side, x : x + side] = (220, 20, 20)
    return image


def write_video(
    path: pathlib.Path,
    images: Sequence[np.ndarray],
    times: Sequence[float],
    sound: np.ndarray | None = None,
    sound_start: float = 0.0,
    rate: int = 16000,
) -> pathlib.Path:
    """Writes an H.264 video with frames at `times` (seconds), and AAC sound, if any, from `sound_start` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "10", "preset": "ultrafast"})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "yuv420p"
        base = Fraction(1, 90000)
        video.time_base = video.codec_context.time_base = base
        track = container.add_stream("aac", rate=rate, layout="mono") if sound is not None else None
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 90000), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            for begin in range(0, len(sound), 1024):
                block = np.ascontiguousarray(sound[None, begin : begin + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = begin + round(sound_start * rate)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def write_sound(path: pathlib.Path, samples: np.ndarray, rate: int = 16000) -> pathlib.Path:
    """Writes mono or stereo float samples as 16-bit sound in the format of the suffix."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def talking(seconds: float, fps: float, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Draws pictures of a moving square; also returns their times, and noise of the same length at 16 kHz."""
    times = np.arange(int(seconds * fps)) / fps
    images = [picture((40 + int(8 * np.sin(t)), 30, 32)) for t in times]
    sound = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16000))
    return images, times, sound.astype(np.float32)


def write_recola(
    folder: pathlib.Path, participants: Sequence[int], seconds: float = 2.0, unlabelled=()
) -> pathlib.Path:
    """Writes RECOLA's public layout: valence rises, arousal falls, and each rater has a different offset."""
    for number in participants:
        name = f"P{number}"
        images, times, sound = talking(seconds, 25, number)
        write_video(folder / "RECOLA-Video-recordings" / f"{name}.mp4", images, times)
        write_sound(folder / "RECOLA-Audio-recordings" / f"{name}.wav", sound)
        for dimension, sign in (("arousal", -1), ("valence", 1)):
            if number in unlabelled:
                continue
            target = folder / "RECOLA-Annotation" / "emotional_behaviour" / dimension / f"{name}.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            lines = [RATERS_HEADER]
            for i in range(int(seconds * 25) + 1):
                values = [sign * (i / 100) + 0.01 * r for r in range(6)]
                lines.append(";".join(f"{v:.4f}" for v in [i / 25, *values]))
            target.write_text("\n".join(lines) + "\n")
    return folder


def write_affectnet(folder: pathlib.Path, train: int = 24, dev: int = 12) -> pathlib.Path:
    """Writes AffectNet's new release: string labels in `.npy`, −2 for picture 3, class 9 for every tenth from 4 on."""
    rng = np.random.default_rng(0)
    for split, count in (("train_set", train), ("val_set", dev)):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "annotations").mkdir()
        for i in range(count):
            image = rng.integers(0, 255, (24, 24, 3), np.uint8)
            cv2.imwrite(str(folder / split / "images" / f"{i}.jpg"), image)
            values = {"exp": 9 if i % 10 == 4 else i % 8, "val": -2 if i == 3 else 0.5, "aro": -2 if i == 3 else -0.25}
            for key, value in values.items():
                np.save(folder / split / "annotations" / f"{i}_{key}.npy", str(value))
    return folder


def write_fec(folder: pathlib.Path, pictures: Callable[[int], str], rows: int = 12) -> pathlib.Path:
    """Writes FEC's lists: ragged rows, three types; in every third row the annotators disagree."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        with (folder / f"faceexp-comparison-data-{split}-public.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            for i in range(rows):
                row = []
                for j in range(3):
                    row += [pictures(i + j), 0.1, 0.9, 0.2, 0.8]
                row.append(("ONE_CLASS_TRIPLET", "TWO_CLASS_TRIPLET", "THREE_CLASS_TRIPLET")[i % 3])
                answers = [2, 2, 2, 1, 3, 2][: 3 + i % 2] if i % 3 else [1, 2, 3]
                for number, answer in enumerate(answers):
                    row += [f"annotator{number}", answer]
                writer.writerow(row)
    return folder


@pytest.fixture
def draw():
    """The helpers above as one namespace."""
    import types

    return types.SimpleNamespace(
        picture=picture,
        video=write_video,
        sound=write_sound,
        talking=talking,
        recola=write_recola,
        affectnet=write_affectnet,
        fec=write_fec,
        header=RATERS_HEADER,
    )


@pytest.fixture
def stopped(monkeypatch):
    """`stopped(tasks, *arguments, **options)` interrupts a preparation after `tasks` tasks and returns their paths."""
    from data_prep import task_runner
    from data_prep.preparation import prepare

    def run(tasks, *arguments, **options):
        real, done = task_runner.run_task, []

        def until(corpus, items, path):
            if len(done) == tasks:
                raise KeyboardInterrupt
            done.append(path)
            real(corpus, items, path)

        monkeypatch.setattr(task_runner, "run_task", until)
        with pytest.raises(KeyboardInterrupt):
            prepare(*arguments, **options)
        monkeypatch.setattr(task_runner, "run_task", real)
        return done

    return run


@pytest.fixture
def interrupted(tmp_path, draw, stopped, monkeypatch):
    """AffectNet in six tasks: its source, its complete data set, and the three that an interrupted run did."""
    from data_prep import corpora
    from data_prep.preparation import prepare

    source = draw.affectnet(tmp_path / "a")
    monkeypatch.setattr(corpora.affectnet.AffectNet, "chunk", 6)
    whole, _ = prepare("affectnet", source, tmp_path / "whole", workers=1, quiet=True)
    return source, whole, stopped(3, "affectnet", source, tmp_path / "cut", workers=1, quiet=True)
