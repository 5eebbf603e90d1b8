"""No frame is lost, one person is followed, and crops are upright RGB squares."""

import dataclasses
import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media import faces, video, yunet
from media.errors import UserError
from media.faces import Face, FaceOptions, Follower


def decode(jpeg):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def follow(pictures, options, fps=25.0):
    frames = (video.Frame(i / fps, image) for i, image in enumerate(pictures))
    return list(Follower(options)(frames))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=st.lists(st.booleans(), min_size=1, max_size=40), every=st.integers(1, 7))
def test_no_frame_is_lost_or_shifted_for_any_pattern_of_missing_faces(red_square, draw, pattern, every):
    options = FaceOptions(detector=red_square, detect_every=every, crop_size=24)
    images = [draw.picture((40, 30, 32) if seen else None) for seen in pattern]
    found = follow(images, options)
    np.testing.assert_allclose([face.time for face in found], np.arange(len(pattern)) / 25)
    for face in found:
        assert (decode(face.jpeg).max() == 0) == (not face.mask)
        assert face.mask or face.box == (0, 0, 0, 0)
    if every == 1:
        assert [face.mask for face in found] == pattern
    # A face or an absence that lasts longer than the time between detections cannot be missed.
    runs = np.split(np.array(pattern), np.flatnonzero(np.diff(pattern)) + 1)
    mask = np.split(np.array([face.mask for face in found]), np.flatnonzero(np.diff(pattern)) + 1)
    for run, seen in zip(runs, mask, strict=True):
        if len(run) >= every:
            assert np.all(seen == run)


def test_the_box_moves_evenly_between_two_detections(red_square, draw):
    images = [draw.picture((20 + 2 * i, 30, 32)) for i in range(11)]
    found = follow(images, FaceOptions(detector=red_square, detect_every=5, crop_size=24, margin=0.0))
    left = np.array([face.box[0] for face in found]) * 128
    np.testing.assert_allclose(left, 20 + 2 * np.arange(11), atol=1.0)


def test_the_same_person_is_followed_past_a_larger_face(red_square, draw):
    images = []
    for i in range(20):
        image = draw.picture((10, 20, 24))
        if i >= 5:
            image[20:70, 70:120] = (220, 20, 20)  # a larger face appears
        images.append(image)
    found = follow(images, FaceOptions(detector=red_square, detect_every=1, crop_size=24))
    assert all(face.box[2] < 0.5 for face in found)


def test_somebody_else_is_taken_up_only_when_the_first_is_lost(red_square, draw):
    images = [draw.picture((5, 20, 24))] * 3 + [draw.picture((90, 20, 24))] * 40
    found = follow(images, FaceOptions(detector=red_square, detect_every=1, crop_size=24, lost_after=1.0))
    mask = [face.mask for face in found]
    assert all(mask[:3])
    assert not any(mask[3:27])
    assert all(mask[28:])


def test_a_crop_is_rgb_and_square_and_black_outside_the_picture():
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, :40], image[:, 40:] = (250, 10, 20), (10, 20, 250)
    out = faces.crop(image, Face(40, 30, 40), FaceOptions(crop_size=32, margin=0.0))
    assert out.shape == (32, 32, 3)
    assert out[16, 4].tolist() == [250, 10, 20]
    assert out[16, 28].tolist() == [10, 20, 250]
    corner = faces.crop(image, Face(0, 0, 40), FaceOptions(crop_size=32, margin=0.0))
    assert corner[:15, :15].max() == 0
    assert corner[20, 20].tolist() == [250, 10, 20]


def test_margin_widens_and_a_large_face_is_averaged_down():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (400, 400, 3), np.uint8)
    out = faces.crop(noise, Face(200, 200, 320), FaceOptions(crop_size=20, margin=0.0))
    assert out.std() < 0.35 * noise.std()  # skipping pixels would keep the noise
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, 0).repeat(3, 2)
    tight = faces.crop(ramp, Face(100, 100, 40), FaceOptions(crop_size=40, margin=0.0))
    wide = faces.crop(ramp, Face(100, 100, 40), FaceOptions(crop_size=40, margin=0.5))
    assert abs(int(tight[20, 38, 0]) - int(tight[20, 2, 0]) - 36) <= 2
    assert abs(int(wide[20, 38, 0]) - int(wide[20, 2, 0]) - 72) <= 3


def test_rolled_eyes_are_turned_level():
    image = np.zeros((100, 100, 3), np.uint8)
    cv2.line(image, (30, 40), (70, 60), (255, 255, 255), 3)
    roll = np.degrees(np.arctan2(20, 40))
    level = faces.crop(image, Face(50, 50, 60, roll), FaceOptions(crop_size=60, margin=0.0))[..., 0]
    rows = np.flatnonzero(level.max(axis=1) > 128)
    assert rows.max() - rows.min() <= 5
    tilted = faces.crop(image, Face(50, 50, 60, roll), FaceOptions(crop_size=60, margin=0.0, align=False))[..., 0]
    assert np.ptp(np.flatnonzero(tilted.max(axis=1) > 128)) > 15


def test_short_gaps_get_a_box_but_stay_masked():
    time = np.arange(8) / 10
    mask = np.array([1, 0, 0, 1, 0, 0, 0, 0], bool)
    box = np.zeros((8, 4), np.float32)
    box[0], box[3] = 0.1, 0.4
    bridged = faces.bridge_gaps(time, box, mask, max_gap=0.3)
    np.testing.assert_allclose(bridged[:4, 0], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert bridged[4:].max() == 0
    assert faces.bridge_gaps(time, box, mask, max_gap=0.2)[1:3].max() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"detector": "yunett"}, "did you mean 'yunet'"),
        ({"detector": "yunet", "detector_model": "gone.onnx"}, "--detector_model=gone.onnx is not a file"),
        ({"detect_every": 0}, "--detect_every must be at least 1"),
        ({"margin": -1.0}, "--margin"),
    ],
)
def test_options_that_cannot_work_are_refused_before_any_video_is_opened(change, said):
    with pytest.raises(UserError, match=said):
        FaceOptions(**change).check()


def test_a_file_that_is_not_a_yunet_model_is_refused(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a YuNet model"):
        Follower(FaceOptions(detector="yunet", detector_model=str(model)))


def test_a_damaged_detector_file_does_not_end_the_process(tmp_path):
    """With this byte changed, OpenCV 4.14's ONNX reader dies by signal 11."""
    data = bytearray(yunet.MODEL.read_bytes())
    data[11370] = 141
    model = tmp_path / "model.onnx"
    model.write_bytes(data)
    with pytest.raises(UserError, match="is not a YuNet model"):
        Follower(FaceOptions(detector="yunet", detector_model=str(model)))


def test_yunet_ships_with_its_licence_and_finds_a_face():
    assert hashlib.sha256(yunet.MODEL.read_bytes()).hexdigest() in yunet.KNOWN
    assert "MIT License" in yunet.MODEL.with_name("face_detection_yunet.LICENSE").read_text()
    options = FaceOptions(detector="yunet")
    options.check()
    (found,) = faces.DETECTORS["yunet"](options)(drawn_face())
    assert abs(found.x - 80) < 12
    assert abs(found.y - 80) < 16


def drawn_face() -> np.ndarray:
    """A drawn face, uint8 `[160, 160, 3]`, around the middle."""
    image = np.full((160, 160, 3), 90, np.uint8)
    skin, dark = (224, 180, 150), (60, 35, 25)
    cv2.ellipse(image, (80, 80), (42, 56), 0, 0, 360, skin, -1, cv2.LINE_AA)
    cv2.ellipse(image, (80, 50), (44, 34), 0, 180, 360, dark, -1, cv2.LINE_AA)
    for x in (63, 97):
        cv2.ellipse(image, (x, 74), (9, 5), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(image, (x, 74), 4, dark, -1, cv2.LINE_AA)
        cv2.line(image, (x - 10, 64), (x + 10, 64), dark, 3, cv2.LINE_AA)
    cv2.line(image, (80, 78), (76, 94), (190, 140, 110), 3, cv2.LINE_AA)
    cv2.ellipse(image, (80, 108), (16, 6), 0, 0, 360, (170, 60, 60), -1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("missing", ["cascade", "class"])
def test_without_a_haar_cascade_a_run_that_recorded_it_is_told_in_one_line(monkeypatch, tmp_path, missing):
    """OpenCV 5 has neither."""
    if missing == "cascade":
        monkeypatch.setattr(faces, "CASCADE", tmp_path / "haarcascade_frontalface_alt2.xml")
    else:
        monkeypatch.delattr(cv2, "CascadeClassifier", raising=False)
    with pytest.raises(UserError, match=r"ships no Haar cascade.*--detector=yunet"):
        FaceOptions(detector="haar").check()


def test_the_default_detector_is_one_that_this_opencv_has():
    FaceOptions().check()
    assert callable(faces.DETECTORS[FaceOptions().detector](FaceOptions()))


@pytest.mark.parametrize("detector", ["haar", "yunet"])
def test_real_faces_are_found_by_both_detectors(real_data, detector):
    model = next((real_data / "weights").glob("*yunet*.onnx"), None)
    clip = next((real_data / "grid").glob("*.mpg"), None)
    if model is None or clip is None:
        pytest.skip("no GRID clip or YuNet model")
    if detector == "haar" and not faces.has_haar():
        pytest.skip(f"OpenCV {cv2.__version__} has no Haar cascade")
    options = FaceOptions(detector=detector, detector_model=str(model), crop_size=64)
    found = list(Follower(options)(video.decode(clip)))
    assert len(found) == 75
    assert np.mean([face.mask for face in found]) > 0.97
    every = list(Follower(dataclasses.replace(options, detect_every=1))(video.decode(clip)))
    tracked = np.abs(np.array([f.box for f in found]) - np.array([f.box for f in every])).max(axis=1)
    assert np.median(tracked) < 0.03
