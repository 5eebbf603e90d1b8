"""The card describes the data set, as JSON and as a page."""

import html.parser
import json
import subprocess
import sys

import numpy as np

from data_prep.card import sound
from data_prep.card.counts import CELLS, SplitCounts, share
from data_prep.card.page import SAMPLES, page
from data_prep.preparation import prepare


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.words, self.squares = 0, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.squares += tag == "title"

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_card_of_faces(tmp_path, draw):
    target, _ = prepare("affectnet", draw.affectnet(tmp_path / "a"), tmp_path / "out", workers=1, quiet=True)
    card = json.loads((target / "card.json").read_text())
    train = card["splits"]["train"]
    assert train["counts"] == {"records": 22}
    assert sum(train["labels"].values()) == 22
    assert train["subjects"] is None  # unknown, not zero
    assert np.sum(train["plane"]) == 21  # one record has no valence and arousal
    column, row = int((0.5 + 1) / 2 * CELLS), int((-0.25 + 1) / 2 * CELLS)
    assert train["plane"][row][column] == 21
    shown = Page((target / "card.html").read_text())
    assert shown.images == SAMPLES
    assert "22" in shown.words
    assert "subjects" not in shown.words
    assert any("train_set/" in word for word in shown.words)


def test_the_card_of_clips(tmp_path, draw, red_square):
    source = draw.recola(tmp_path / "a", (16, 19), seconds=1.0)
    target, _ = prepare("recola", source, tmp_path / "out", workers=1, quiet=True, detector=red_square, crop_size=16)
    card = json.loads((target / "card.json").read_text())
    train = card["splits"]["train"]
    assert train["seconds"] == 1.0
    assert train["face_miss_rate"] == 0.0
    assert train["counts"]["frames_with_target"] == 25
    assert train["subjects"] == 1
    shown = Page((target / "card.html").read_text())
    assert shown.images == SAMPLES + 1
    assert "log-mel, 0.96 s" in shown.words


def test_silent_clipped_and_missing_sound_is_flagged(tmp_path, draw, red_square):
    images, times, sound = draw.talking(1.0, 10)
    loud = np.sign(sound).astype(np.float32)
    for name, samples in (("good", sound), ("silent", 0 * sound), ("clipped", loud), ("none", None)):
        draw.video(tmp_path / "own" / f"{name}.mp4", images, times)
        if samples is not None:
            draw.sound(tmp_path / "own" / f"{name} alone.wav", samples)
    target, _ = prepare(
        "own", tmp_path / "own", tmp_path / "out", workers=1, quiet=True, detector=red_square, crop_size=8
    )
    card = json.loads((target / "card.json").read_text())
    assert card["splits"]["test"]["sound"] == {
        "clipped": {"recordings": 1, "first": ["clipped alone.wav"]},
        "no sound": {"recordings": 4, "first": ["clipped.mp4", "good.mp4", "none.mp4", "silent.mp4"]},
        "silent": {"recordings": 1, "first": ["silent alone.wav"]},
    }
    words = Page((target / "card.html").read_text()).words
    assert "clipped alone.wav" in words


def test_counts_merge_and_come_back_from_json():
    rng = np.random.default_rng(0)
    records = [{"label": int(rng.integers(-1, 8)), "valence": v, "arousal": -v} for v in rng.uniform(-1, 1, 20)]
    whole, parts = SplitCounts("faces"), SplitCounts("faces")
    for i, record in enumerate(records):
        whole.add("train", record)
        one = SplitCounts("faces")
        one.add("train", record)
        parts.merge(SplitCounts.from_json("faces", json.loads(json.dumps(one.to_json()))))
        assert np.sum(parts.splits["train"]["plane"]) == i + 1
    assert parts.to_json() == whole.to_json()


def test_share_of_nothing_is_unknown():
    assert share(0, 0) is None
    assert share(1, 3) == 0.3333


def test_markup_in_a_name_is_shown_as_text():
    card = {
        "corpus": "own", "kind": "clips", "title": "<script>", "citation": "", "licence": "", "schema": "1.0.0",
        "classes": [], "splits": {}, "items": 1, "items_skipped": 1, "items_left_out": {},
        "skipped": [{"item": "<b>.mp4", "split": "train", "reason": "a & b"}],
        "source_fingerprint": "0", "arguments": {},
    }  # fmt: skip
    text = page(card, [])
    assert "<script>" not in text
    assert "&lt;b&gt;.mp4" in text


def test_sound_is_drawn_if_there_is_enough():
    log_mel = np.random.default_rng(0).normal(size=(120, 64)).astype(np.float32)
    assert [caption for _, caption in sound.pictures(log_mel)] == ["log-mel, 0.96 s"]
    assert sound.pictures(log_mel[:90]) == sound.pictures(None) == []


def test_preparing_needs_no_jax():
    code = "import sys, data_prep.card.contents; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
