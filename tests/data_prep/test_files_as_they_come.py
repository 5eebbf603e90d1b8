"""Recordings as phones, browsers and recorders write them, prepared as your own corpus and as unlabelled faces."""

import json

import av
import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import command_line
from data_prep.preparation import prepare


@pytest.fixture
def recordings(tmp_path, draw):
    """A folder of recordings, some with names that say little."""
    source = tmp_path / "in"
    images, times, sound = draw.talking(1.0, 25)
    draw.video(source / "film.mts", images, times, sound)
    (source / "no suffix").write_bytes((source / "film.mts").read_bytes())
    (source / "joined.ts").write_bytes((source / "film.mts").read_bytes() * 2)
    draw.video(source / "whole.mkv", images * 4, np.arange(100) / 25, np.tile(sound, 4))
    data = (source / "whole.mkv").read_bytes()
    (source / "whole.mkv").unlink()
    (source / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    for name, codec, rate in (("voice.mp4", "aac", 16000), ("voice.webm", "libopus", 48000)):
        with av.open(str(source / name), "w") as out:
            track = out.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.repeat(sound, rate // 16000)[None], "fltp", "mono")
            frame.sample_rate, frame.pts = rate, 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    (source / "notes.txt").write_text("not a recording")
    (source / "table.xyz").write_bytes(bytes(range(256)) * 8)
    return source


def test_tracks_decide_and_what_is_not_read_is_named(recordings, tmp_path, red_square, capsys):
    arguments = ["own", f"--source={recordings}", f"--output={tmp_path / 'out'}", "--workers=1", "--quiet"]
    assert command_line.main([*arguments, f"--detector={red_square}", "--crop_size=16"]) == 0
    card = json.loads((tmp_path / "out/own/1.0.0/card.json").read_text())
    built = tfds.builder_from_directory(tmp_path / "out/own/1.0.0")
    found = {r["recording"].decode(): r for r in built.as_data_source("test")}
    assert set(found) == {"film.mts", "no suffix", "joined.ts", "voice.mp4", "voice.webm"}
    assert all(r["audio_mask"].all() for r in found.values())
    assert {name: bool(np.any(r["face_mask"])) for name, r in found.items()} == {
        name: not name.startswith("voice") for name in found
    }
    assert len(found["joined.ts"]["time"]) == 50
    assert found["joined.ts"]["time"][-1] == pytest.approx(2.0, abs=0.15)
    assert card["notes"] == ["passed over: 2 files of other kinds (notes.txt, table.xyz)"]
    assert [one["item"] for one in card["skipped"]] == ["cut.mkv"]
    assert "cut short" in card["skipped"][0]["reason"]
    (said,) = (flag for flag in card["splits"]["test"]["sound"] if "jumps" in flag)
    assert card["splits"]["test"]["sound"][said]["first"] == ["joined.ts"]
    printed = capsys.readouterr().out
    assert "passed over: 2 files of other kinds (notes.txt, table.xyz)" in printed
    # A card from before an option existed describes the same data set.
    changed = {k: v for k, v in card["arguments"].items() if k not in ("max_megapixels", "audio_track")}
    (tmp_path / "out/own/1.0.0/card.json").write_text(json.dumps({**card, "arguments": changed}))
    assert command_line.main([*arguments, f"--detector={red_square}", "--crop_size=16"]) == 0
    assert "complete already" in capsys.readouterr().out


def test_unlabelled_pictures_and_films_of_any_name(recordings, tmp_path, draw, red_square):
    for name in ("no suffix", "joined.ts", "cut.mkv"):
        (recordings / name).unlink()
    _, data = cv2.imencode(".jpg", draw.picture((30, 30, 30))[..., ::-1])
    (recordings / "a.jfif").write_bytes(data.tobytes() + b"\0" * 100)
    (recordings / "b.heic").write_bytes(data.tobytes())
    target, _ = prepare(
        "unlabelled", recordings, tmp_path / "out", workers=1, quiet=True, detector=red_square, crop_size=16
    )
    card = json.loads((target / "card.json").read_text())
    names = {r["name"].decode() for r in tfds.builder_from_directory(target).as_data_source("train")}
    assert names == {"a.jfif", "b.heic", "film.mts@0", "film.mts@1"}
    assert card["items_left_out"] == {"it is sound without a picture": 2}
    assert card["items_skipped"] == 0


def test_a_picture_above_the_limit_is_skipped(tmp_path, draw):
    source = tmp_path / "in"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), draw.picture(None))
    cv2.imwrite(str(source / "b.png"), np.zeros((300, 400, 3), np.uint8))
    target, _ = prepare("unlabelled", source, tmp_path / "out", workers=1, quiet=True, max_megapixels=0.1)
    card = json.loads((target / "card.json").read_text())
    assert card["skipped"][0]["item"] == "b.png"
    assert "400x300 pixels, more than 0.1 megapixels" in card["skipped"][0]["reason"]
