"""`overlay.mp4`: the video with its sound and face boxes; below it a valence/arousal pad and a scrolling trace."""

import fractions
import pathlib
from collections.abc import Iterator
from typing import Any

import av
import cv2
import numpy as np

from avemo.predict.painter import Layout, Painter
from avemo.predict.prefetch import Prefetch
from avemo.predict.recording import Recording, decoding
from avemo.predict.trace import Trace
from media import audio, video
from media.files import media_address

_TICKS = 90_000  # per second of the overlay's time base
_RATE = 48_000  # samples of sound per second


def write(trace: Trace, recording: Recording, path: pathlib.Path) -> Layout | None:
    """Writes the overlay of a recording; returns its layout, or None if the recording has no picture.

    Decoding and drawing run ahead in another thread. Frames keep their times, so a variable frame rate stays as it is.
    """
    if not recording.picture:
        return None
    with (
        decoding(recording),
        Prefetch(_painted(trace, recording), 8) as frames,
        av.open(media_address(path), "w", format="mp4") as out,
    ):
        layout, origin = next(frames)
        rate = fractions.Fraction(recording.fps).limit_denominator(1001)
        picture = out.add_stream("libx264", rate=rate, options={"preset": "superfast", "crf": "23", "bf": "0"})
        picture.width, picture.height, picture.pix_fmt = layout.width, layout.total, "yuv420p"
        picture.time_base = picture.codec_context.time_base = fractions.Fraction(1, _TICKS)
        sound = _Sound(recording, out, origin) if recording.audible else None
        for number, (time, planes) in enumerate(frames):
            image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            image.pts, image.time_base = round(time * _TICKS), fractions.Fraction(1, _TICKS)
            out.mux(picture.encode(image))
            if sound is not None and number % 8 == 0:
                sound.until(time + 0.5)
        out.mux(picture.encode(None))
        if sound is not None:
            sound.until(float("inf"))
    return layout


def _painted(trace: Trace, recording: Recording) -> Iterator[tuple[Any, Any]]:
    """Yields (layout, container time of the first frame), then (time, overlay as YUV 4:2:0 planes) for every frame."""
    painter, origin = None, 0.0
    for frame in video.decode(recording.path, options=recording.reading):
        if painter is None:
            layout, origin = Layout.of(frame.image.shape[1], frame.image.shape[0]), frame.time
            painter = Painter(trace, layout)
            yield layout, origin
        time = frame.time - origin
        yield time, cv2.cvtColor(painter(frame.image, time), cv2.COLOR_RGB2YUV_I420)


class _Sound:
    """The recording's own sound, encoded as AAC into the overlay in step with the picture.

    `origin` is time 0 on the container's clock, in seconds; None = the first sample.
    """

    def __init__(self, recording: Recording, out: av.container.OutputContainer, origin: float | None):
        self._blocks = audio.without_gaps(audio.decode(recording.path, recording.reading, rate=_RATE), _RATE)
        self._out, self._origin, self._done = out, origin, False
        self._stream = out.add_stream("aac", rate=_RATE, options={"b": "96k"})
        self._stream.layout = "mono"
        self._samples: int | None = None  # position of the next sample in the overlay; negative before time 0

    def until(self, seconds: float) -> None:
        """Encodes the sound up to a time in the picture."""
        while not self._done and (self._samples or 0) < seconds * _RATE:
            start, samples = next(self._blocks, (0.0, None))
            if samples is None:
                self._done = True
                self._out.mux(self._stream.encode(None))
                return
            if self._samples is None:
                self._samples = 0 if self._origin is None else round((start - self._origin) * _RATE)
            self._encode(samples[max(0, -self._samples) :], max(0, self._samples))
            self._samples += len(samples)

    def _encode(self, samples: np.ndarray, position: int) -> None:
        if len(samples):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = _RATE, position, fractions.Fraction(1, _RATE)
            self._out.mux(self._stream.encode(frame))


def write_sound(recording: Recording, path: pathlib.Path) -> None:
    """Writes the sound of a recording without a picture, as AAC; its time 0 is the first sample."""
    with decoding(recording), av.open(media_address(path), "w", format="mp4") as out:
        _Sound(recording, out, None).until(float("inf"))
