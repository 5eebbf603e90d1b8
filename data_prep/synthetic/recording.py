"""One speaker before a camera: from a latent trace to an mp4, a wav and the six raters' tables, in RECOLA's layout."""

import dataclasses
import fractions
import pathlib
from collections.abc import Iterable, Iterator

import av
import cv2
import numpy as np
import soundfile

from data_prep.synthetic import expression, latent, raters, voice
from data_prep.synthetic.face import Pose
from data_prep.synthetic.identity import Identity
from data_prep.synthetic.scene import Scene
from data_prep.synthetic.voice import Speaker, Utterances

# The participants of RECOLA's challenge split.
SPLITS = {
    "train": (16, 21, 23, 25, 37, 39, 41, 46, 56),
    "dev": (19, 26, 28, 30, 34, 42, 45, 64, 65),
    "test": (13, 20, 32, 38, 47, 49, 53, 59, 63),
}
RAMP = 6  # frames that a face takes to turn away, or a hand to come up


@dataclasses.dataclass(frozen=True)
class Performance:
    """Everything that happens in a recording, as arrays `[T]` or `[T, …]` at 25 Hz."""

    who: Identity
    truth: np.ndarray  # [T, 2] valence, arousal
    face: np.ndarray  # [T, 2] what the face shows of them
    voice: np.ndarray  # [T, 2] what the voice shows of them
    hidden: np.ndarray  # [T, 3] 0–1: turned away, covered, out of the picture
    said: Utterances
    speaker: Speaker

    @property
    def face_visible(self) -> np.ndarray:
        """Whether the whole face is in view, bool `[T]`."""
        return self.hidden.max(axis=1) == 0

    @property
    def speaking(self) -> np.ndarray:
        """Whether the speaker is inside a phrase, bool `[T]`."""
        return self.said.speaking[:: 100 // latent.FPS][: len(self.truth)]


def perform(seed: int, name: str, frames: int, cues: latent.Cues) -> Performance:
    """Draws a performance of `frames` video frames."""
    truth = latent.affect(latent.stream(seed, name, "latent"), frames)
    face = cues.display(latent.stream(seed, name, "face"), truth, "face")
    shown = cues.display(latent.stream(seed, name, "voice"), truth, "voice")
    rng = latent.stream(seed, name, "hidden")
    hidden = np.zeros((frames, 3))
    for first, end in latent.spans(rng, frames, on=(4.0, 10.0), off=(1.2, 4.0)):
        ramp = np.minimum(1, np.minimum(np.arange(first, end) - first + 1, end - np.arange(first, end)) / RAMP)
        hidden[first:end, rng.integers(3)] = ramp
    rng = latent.stream(seed, name, "speech")
    who = Identity.sample(latent.stream(seed, name, "identity"))
    speaker = Speaker.sample(rng, deep=who.hair_style in ("short", "bald"))
    return Performance(who, truth, face, shown, hidden, voice.plan(rng, shown, speaker.tempo), speaker)


def pictures(seed: int, name: str, act: Performance, size: int) -> Iterator[np.ndarray]:
    """Yields the frames of a performance, uint8 RGB `[size, size, 3]`."""
    rng = latent.stream(seed, name, "scene")
    scene = Scene(rng, act.who, size)
    frames = len(act.truth)
    sway = np.stack([latent.smooth_noise(rng, frames, 0.5) for _ in range(6)], axis=1)
    sway *= np.array([0.055, 0.035, 0.045, 0.02, 0.12, 0.015])  # x, y, tilt, zoom, turn, brightness
    blink = np.zeros(frames)
    for first, _ in latent.spans(rng, frames, on=(1.5, 5.0), off=(0.2, 0.2)):
        shape = np.array([0.5, 1.0, 1.0, 0.6, 0.2])[: frames - first]
        blink[first : first + len(shape)] = shape
    gaze = np.zeros((frames, 2))
    for first, end in latent.spans(rng, frames, on=(0.8, 3.0), off=(0.4, 1.5)):
        gaze[first:end] = rng.uniform(-0.6, 0.6, 2)
    grain = rng.integers(0, 32, (frames, 2))
    step = 100 // latent.FPS
    moves = expression.from_affect(act.face)
    side = rng.choice([-1.0, 1.0])
    for t in range(frames):
        away, cover, gone = act.hidden[t]
        x, y, tilt, zoom, turn, light = sway[t]
        pose = Pose(act.said.jaw[t * step], act.said.rounding[t * step], blink[t], gaze[t], turn + side * 0.9 * away)
        yield scene.render(
            moves[t],
            pose,
            at=(x + side * 0.25 * away, y),
            tilt=tilt,
            zoom=1 + zoom,
            away=away,
            cover=cover,
            gone=side * gone**2,
            gain=1 + light,
            grain=grain[t],
        )


def write_video(path: pathlib.Path, frames: Iterable[np.ndarray], sound: np.ndarray, size: int) -> None:
    """Writes an mp4 with H.264 pictures at 25 fps and AAC sound, on one thread so that the bytes are reproducible."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream(
            "libx264", rate=latent.FPS, options={"preset": "ultrafast", "crf": "21", "threads": "1"}
        )
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=voice.RATE, layout="mono", options={"aac_coder": "fast"})
        for frame in frames:
            planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = voice.RATE, 0, fractions.Fraction(1, voice.RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def _table(path: pathlib.Path, header: str, rows: np.ndarray, form: str, delimiter: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [header, *(delimiter.join([f"{row[0]:.2f}", *(form % value for value in row[1:])]) for row in rows)]
    path.write_text("\n".join(text) + "\n")


def write(
    folder: pathlib.Path, seed: int, participant: int, seconds: float, size: int, panel: raters.Panel, cues: latent.Cues
) -> tuple[np.ndarray, np.ndarray]:
    """Writes one participant in RECOLA's layout under `folder` and returns (truth `[T, 2]`, ratings `[T, 6, 2]`).

    As in RECOLA, there is one more time stamp than frames (7,501 for 7,500).
    """
    name = f"P{participant}"
    frames = round(seconds * latent.FPS)
    act = perform(seed, name, frames, cues)
    truth = np.concatenate([act.truth, act.truth[-1:]])
    ratings = panel.rate(latent.stream(seed, name, "raters"), truth)
    time = np.arange(frames + 1)[:, None] * raters.STAMP
    for column, dimension in ((1, "arousal"), (0, "valence")):
        path = folder / "RECOLA-Annotation" / "emotional_behaviour" / dimension / f"{name}.csv"
        _table(path, "time;" + ";".join(raters.NAMES).rstrip(), np.hstack([time, ratings[:, :, column]]), "%.4f", ";")
    known = np.stack([act.face_visible, act.speaking], axis=1).astype(float)
    known = np.hstack([time, truth, np.concatenate([known, known[-1:]])])
    _table(folder / "synthetic_truth" / f"{name}.csv", "time,valence,arousal,face_visible,speaking", known, "%.6g", ",")
    sound = voice.synthesise(latent.stream(seed, name, "sound"), act.speaker, act.said, act.voice)
    sound = np.rint(sound * 32767) / 32768
    for kind in ("Audio", "Video"):
        (folder / f"RECOLA-{kind}-recordings").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "RECOLA-Audio-recordings" / f"{name}.wav", sound, voice.RATE, subtype="PCM_16")
    video = folder / "RECOLA-Video-recordings" / f"{name}.mp4"
    write_video(video, pictures(seed, name, act, size), sound.astype(np.float32), size)
    return truth, ratings
