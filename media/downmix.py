"""Decoded sound of any rate and layout as one mono track; files, pipes and overlays hear the same."""

from collections.abc import Iterator

import av
import numpy as np

# ITU-R BS.775: what a listener in the middle hears, by loudspeaker. Others count as 1, the subwoofer not at all.
_WEIGHTS = {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5, "BC": 0.5, "LFE": 0.0}
# A channel is heard once its energy so far is this share of the loudest one's (-40 dB).
_HEARD_SHARE = 1e-4


class Mono:
    """Converts decoded frames, in order, to mono at a fixed rate. Layout, format and rate may change on the way.

    The channels that are heard are averaged with their weights. A channel that has been silent so far (the other side
    of a clip-on microphone, the empty surround channels) is left out, as it would make the sound quieter. What is heard
    is judged by the sound so far, so a pipe and a file give the same samples.
    """

    def __init__(self, rate: int):
        self._rate = rate
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._weights = np.ones(1)
        self._energy = np.zeros(1)

    def __call__(self, frame: av.AudioFrame | None) -> Iterator[tuple[float | None, np.ndarray]]:
        """Yields (seconds of its first sample or None, samples float32 `[n]`) for a frame; None ends the track."""
        if frame is None:
            yield from self._end()
            return
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            yield from self._end()
            self._begin(frame, kind)
        seconds = frame.time if frame.pts is not None else None
        frame.pts = None  # unusual time bases make the resampler fail, so the time is kept here
        assert self._resampler is not None
        for block in self._resampler.resample(frame):
            yield seconds, self._mixed(block.to_ndarray())
            seconds = None

    def _begin(self, frame: av.AudioFrame, kind: tuple[str, str, int]) -> None:
        self._kind = kind
        self._resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=self._rate)
        names = [channel.name for channel in frame.layout.channels]
        weights = np.array([_WEIGHTS.get(name, 1.0) for name in names])
        self._weights = weights if weights.any() else np.ones(len(names))
        self._energy = np.zeros(len(names))

    def _end(self) -> Iterator[tuple[None, np.ndarray]]:
        if self._resampler is not None:
            for block in self._resampler.resample(None):
                yield None, self._mixed(block.to_ndarray())
        self._resampler = self._kind = None

    def _mixed(self, channels: np.ndarray) -> np.ndarray:
        """The weighted mean float32 `[n]` of the channels `[C, n]` that are heard."""
        if len(channels) == 1:
            return channels[0]
        energy = self._energy[:, None] + np.cumsum(np.nan_to_num(channels).astype(np.float64) ** 2, axis=1)
        self._energy = energy[:, -1] if energy.shape[1] else self._energy
        counts = self._weights[:, None] > 0
        heard = counts & (energy >= _HEARD_SHARE * np.where(counts, energy, 0).max(axis=0))
        weights = np.where(heard, self._weights[:, None], 0)
        return ((weights * channels).sum(axis=0) / weights.sum(axis=0)).astype(np.float32)
