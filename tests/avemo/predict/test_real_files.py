"""Traces of files as phones and recorders write them; small files from `AVEMO_DATA/real_files`."""

import dataclasses

import numpy as np
import pytest

from avemo import predict
from avemo.predict import recording, standard_input, stream
from helpers import tiny_runs
from media.errors import UserError
from media.faces import FaceOptions

pytestmark = pytest.mark.data
FACES = FaceOptions(detector="yunet")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    visual, audio = tiny_runs.visual(folder / "visual"), tiny_runs.audio(folder / "audio")
    return predict.open_models(tiny_runs.fusion(folder / "fusion", visual, audio, dataclasses.asdict(FACES)))


@pytest.fixture
def real_files(real_data):
    folder = real_data / "real_files"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def trace_of(models, path, **faces):
    faces = dataclasses.replace(FACES, **faces)
    return predict.analyse(models, recording.probe(path), stream.Options(faces=faces))


def test_pixels_that_are_not_square_give_the_trace_of_those_that_are(models, real_files):
    wide, square = (trace_of(models, real_files / "media" / f"05_{n}.mp4") for n in ("sar_4_3", "square_reference"))
    assert (wide.notes["width"], wide.notes["height"]) == (352, 176)
    assert wide.face.all()
    np.testing.assert_allclose(wide.box, square.box, atol=0.02)
    np.testing.assert_allclose(wide.values["traces"], square.values["traces"], atol=0.05)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("01_hflip.mp4", 100),
        ("07_last_frame_2s.mp4", 50),
        ("10_iphone_apac.mov", 100),
        ("13_sound_format_changes.mpg", 100),
    ],
)
def test_files_that_were_refused_or_turned_are_read(models, real_files, name, frames):
    trace = trace_of(models, real_files / "media" / name)
    assert len(trace) == frames
    assert trace.face.all()
    assert trace.sound.all()


def test_a_matroska_file_cut_short_is_refused(models, real_files):
    with pytest.raises(UserError, match=r"cut short: only 2\.3 s of 4\.0 s are there"):
        trace_of(models, real_files / "media" / "15_truncated.mkv")


@pytest.mark.parametrize("name", ["stereo.mkv", "stereo_opus.webm", "raw.h264"])
def test_a_pipe_gives_the_trace_of_the_file(models, real_files, tmp_path, name):
    expected = trace_of(models, real_files / "pipe" / name, detect_every=1)
    with (real_files / "pipe" / name).open("rb") as source:
        result = standard_input.predict_pipe(
            models, source, str(tmp_path), stream.Options(faces=FACES), ("csv",), emit=lambda line: None
        )
    rows = np.genfromtxt(tmp_path / "trace.csv", delimiter=",", names=True)
    np.testing.assert_allclose(rows["time"], expected.time, atol=1e-5)
    got = np.stack([rows["valence"], rows["arousal"]], axis=1)
    np.testing.assert_allclose(got, expected.values["traces"][0], atol=1e-4)
    assert ("no times" in str(result.get("notes"))) == (name == "raw.h264")
