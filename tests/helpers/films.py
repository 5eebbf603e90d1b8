"""Real video and sound files made in a test: bright squares for faces, tones for voices."""

import fractions
import pathlib
from collections.abc import Callable, Sequence

import av
import numpy as np

from media.faces import DETECTORS, Face, FaceOptions

WIDTH, HEIGHT = 192, 128
# A square's centre (x, y) and side in pixels at a time in s; None while it is absent.
Path = Callable[[float], tuple[float, float, float] | None]


@DETECTORS.register("squares")
class SquareDetector:
    """Finds bright squares, each separated from the next by dark columns."""

    def __init__(self, options: FaceOptions):
        del options

    def __call__(self, image: np.ndarray, smallest: float = 0.0) -> list[Face]:
        bright = image.min(-1) > 128
        columns = np.concatenate([[False], bright.sum(0) > 5, [False]]).astype(np.int8)
        edges = np.flatnonzero(np.diff(columns)).reshape(-1, 2)
        faces = []
        for a, b in edges:
            rows = np.flatnonzero(bright[:, a:b].any(1))
            if b - a > 5:
                faces.append(Face((a + b) / 2, float(rows.mean()) + 0.5, float(b - a), 0.0, 0.9))
        return faces


FACES = {"detector": "squares", "crop_size": 48, "detect_every": 3}


def still(x: float = 96, y: float = 64, side: float = 48) -> Path:
    """A square that stays."""
    return lambda time: (x, y, side)


def picture(time: float, squares: Sequence[Path]) -> np.ndarray:
    """A frame of dark noise and the squares, each with a texture that changes over time."""
    rng = np.random.default_rng(round(time * 1000))
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3))
    for path in squares:
        place = path(time)
        if place is not None:
            x, y, side = place
            x0, y0, n = round(x - side / 2), round(y - side / 2), round(side)
            ramp = 170 + 80 * np.linspace(0, 1, n) * np.sin(3 * time)
            image[y0 : y0 + n, x0 : x0 + n] = np.clip(ramp, 140, 255)[:, None, None]
    return image.astype(np.uint8)


def film(
    path: pathlib.Path,
    *,
    times: Sequence[float] | None = None,
    seconds: float = 2.0,
    fps: float = 25.0,
    squares: Sequence[Path] = (still(),),
    sound: float | None = None,
    sound_start: float = 0.0,
    codec: str = "mpeg4",
    rotation: int = 0,
) -> pathlib.Path:
    """Writes a video; `times` of its frames (default regular), `sound` seconds of sound (None: no track)."""
    times = np.arange(round(seconds * fps)) / fps if times is None else times
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fractions.Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        heard = out.add_stream("aac" if path.suffix in (".mp4", ".mkv") else "mp2", rate=44100) if sound else None
        if heard is not None:
            heard.layout = "mono"
        for time in times:
            image = picture(time, squares)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), fractions.Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if heard is not None:
            for part in tone(sound):
                part.pts += round(sound_start * 44100)
                out.mux(heard.encode(part))
            out.mux(heard.encode(None))
    return path


def tone(seconds: float, rate: int = 44100) -> list[av.AudioFrame]:
    """A tone whose pitch and level change."""
    time = np.arange(round(seconds * rate)) / rate
    wave = (0.3 + 0.2 * np.sin(2 * time)) * np.sin(2 * np.pi * (300 * time + 60 * np.sin(4 * time)))
    frames = []
    for begin in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024].astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, fractions.Fraction(1, rate)
        frames.append(frame)
    return frames


def sound_file(path: pathlib.Path, seconds: float = 2.0) -> pathlib.Path:
    """A sound file without a picture."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=44100, layout="mono")
        for frame in tone(seconds):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
