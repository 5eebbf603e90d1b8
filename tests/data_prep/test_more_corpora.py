"""Aff-Wild2 and CREMA-D from their layouts."""

import json

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep.corpora import aff_wild2
from data_prep.preparation import prepare
from media import records
from media.errors import BadItem, UserError


def read(folder, split):
    out = list(tfds.builder_from_directory(str(folder)).as_data_source(split=split))
    for record in out:
        records.check_clip(record)
    return out


def write_aff_wild2(source, draw):
    images, times, sound = draw.talking(1.0, 25)
    draw.video(source / "batch1" / "7-60.mp4", images, times, sound)
    for folder, name, lines in (
        ("Train_Set", "7-60_left", ["0.5,-0.25"] * 20 + ["-5,-5"] + ["-5,0.3"] + ["-0.1,0.1"] * 3),
        ("Validation_Set", "video9", ["0.1,0.2"] * 10),
    ):
        table = source / "VA_Estimation_Challenge" / folder / f"{name}.txt"
        table.parent.mkdir(parents=True)
        table.write_text("valence,arousal\n" + "\n".join(lines) + "\n")
        crops = source / "cropped_aligned" / name
        crops.mkdir(parents=True)
        for number in range(1, len(lines) + 1):
            if number != 4:  # the cropper found no face there
                cv2.imwrite(str(crops / f"{number:05d}.jpg"), np.full((16, 16, 3), 5 * number, np.uint8))
    return source


def test_aff_wild2_keeps_the_frame_without_a_crop_and_masks_minus_five(tmp_path, draw):
    source = write_aff_wild2(tmp_path / "aff", draw)
    target, _ = prepare("aff_wild2", source, tmp_path / "out", workers=1, quiet=True, crop_size=16, max_frames=10)
    parts = read(target, "train")
    assert [len(part["time"]) for part in parts] == [10, 10, 5]
    face = np.concatenate([part["face_mask"] for part in parts])
    known = np.concatenate([part["target_mask"] for part in parts])
    targets = np.concatenate([part["targets"] for part in parts])
    assert np.flatnonzero(~face).tolist() == [3]
    assert np.flatnonzero(~known).tolist() == [20, 21]
    np.testing.assert_allclose(targets[[3, 22]], [[0.5, -0.25], [-0.1, 0.1]], atol=1e-6)
    assert parts[0]["frames"][3].max() == 0
    assert abs(int(parts[0]["frames"][4].mean()) - 25) <= 1  # picture 00005 is frame 4
    assert np.concatenate([part["audio_mask"] for part in parts]).all()  # the sound of 7-60.mp4
    (dev,) = read(target, "dev")
    assert not dev["audio_mask"].any()


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("valence,arousal\n0.1,0.2\n0.1\n")
    with pytest.raises(BadItem, match="line 3"):
        aff_wild2.read_table(path)


def test_crema_d_splits_by_actor(tmp_path, draw, red_square):
    source = tmp_path / "crema"
    images, times, sound = draw.talking(0.6, 25)
    for actor in (1001, 1002, 1003):
        for emotion in ("ANG", "NEU"):
            name = f"{actor}_DFA_{emotion}_XX"
            draw.video(source / "VideoFlash" / f"{name}.flv", images, np.round(times, 3))
            draw.sound(source / "AudioWAV" / f"{name}.wav", sound)
    target, _ = prepare("crema_d", source, tmp_path / "out", workers=1, quiet=True, detector=red_square, crop_size=16)
    train, dev = read(target, "train"), read(target, "dev")
    assert {r["subject"] for r in dev} == {b"1003"}
    assert sorted(int(r["label"]) for r in train) == [0, 0, 6, 6]
    assert all(r["audio_mask"].all() and r["face_mask"].all() for r in train)
    sounds, _ = prepare("crema_d", source, tmp_path / "audio", workers=1, quiet=True, modality="audio", crop_size=8)
    card = json.loads((sounds / "card.json").read_text())
    assert card["splits"]["train"]["face_miss_rate"] == 1.0
    with pytest.raises(UserError, match="no speaker 9"):
        prepare("crema_d", source, tmp_path / "x", dev_speakers="9")
