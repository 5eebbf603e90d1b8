import json
import os
import pathlib
import re

import av
import numpy as np
import pytest

from avemo.predict import overlay, painter, recording, viewer
from avemo.predict.trace import Trace
from avemo.predict.trace_files import write_png
from helpers import browser, films

SECONDS, FPS = 4.0, 25.0


def make_trace(path, persons=1, classes=()):
    """A trace with known numbers: valence is the frame's number over 100, so it identifies the picture."""
    time = np.arange(round(SECONDS * FPS)) / FPS
    face = np.ones((persons, len(time)), bool)
    face[:, 25:50] = False
    box = np.where(face[..., None], np.array([0.3, 0.2, 0.7, 0.9], np.float32), 0).astype(np.float32)
    curves = np.stack([np.arange(len(time)) / 100 - 0.5, np.sin(3 * time)], -1)
    values = {"traces": np.repeat(curves[None], persons, 0).astype(np.float32)}
    if classes:
        share = np.linspace(0.1, 0.9, len(time))
        values = {"probabilities": np.stack([share, 1 - share], -1)[None].astype(np.float32)}
        values["clip"] = values["probabilities"].mean(1)
    sound = time < 3.0
    notes = {"input": path.name, "fps": FPS, "sees": True, "hears": True}
    return Trace(time, tuple(range(persons)), face, box, face * np.float32(0.9), sound, values, tuple(classes), notes)


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory):
    with browser.Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser_page):
    browser_page.size(1100, 900)
    return browser_page


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    source = films.film(folder / "a <script> film.mp4", seconds=SECONDS, sound=SECONDS)
    trace = make_trace(source)
    layout = overlay.write(trace, recording.probe(source), folder / "overlay.mp4")
    viewer.write(trace, folder / "viewer.html", folder / "overlay.mp4", layout)
    return folder, trace


def test_the_overlay_has_the_video_its_sound_and_its_times(page_folder):
    folder, trace = page_folder
    found = recording.probe(folder / "overlay.mp4")
    assert found.sound
    with av.open(str(folder / "overlay.mp4")) as container:
        frames = list(container.decode(video=0))
        heard = sum(f.samples / f.sample_rate for f in container_audio(folder / "overlay.mp4"))
    np.testing.assert_allclose([f.time for f in frames], trace.time, atol=1e-3)
    assert heard == pytest.approx(SECONDS, abs=0.1)
    layout = painter.Layout.of(films.WIDTH, films.HEIGHT)
    assert (frames[0].width, frames[0].height) == (layout.width, layout.total)
    seen, absent = (frames[i].to_ndarray(format="rgb24").astype(int) for i in (10, 40))
    edge = (slice(round(0.3 * layout.height), round(0.8 * layout.height)), round(0.3 * layout.width))
    green = lambda image: (image[edge][:, 1] - image[edge][:, 0]).mean()  # noqa: E731
    assert green(seen) > 60  # the box is drawn only where there is a face
    assert abs(green(absent)) < 30


def container_audio(path):
    with av.open(str(path)) as container:
        yield from container.decode(audio=0)


def test_every_class_has_its_name_below_a_narrow_picture(tmp_path):
    names = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
    trace = make_trace(tmp_path / "film.mp4", classes=names)
    strip = painter.Painter(trace, painter.Layout.of(360, 288))(np.zeros((288, 360, 3), np.uint8), 0.0)[288:]
    for colour in painter._LINES[: len(names)]:
        written = (np.abs(strip.astype(int) - colour).max(-1) < 40).nonzero()
        assert len(written[0]) > 15, colour
        assert written[0].min() < 25


def test_the_page_is_one_file_and_well_formed(page_folder):
    folder, trace = page_folder
    page = (folder / "viewer.html").read_text()
    assert not re.search(r'(src|href)\s*=\s*"?https?:', page)
    assert "{{" not in page
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S).group(1))
    assert data["people"][0]["gaps"] == [[1.0, 2.0]]
    assert data["silence"] == [[3.0, pytest.approx(4.0)]]
    assert data["people"][0]["curves"][0][7] == pytest.approx(trace.curves[0, 7, 0], abs=1e-4)


def test_a_large_video_stays_beside_the_page(page_folder, tmp_path, monkeypatch):
    folder, trace = page_folder
    monkeypatch.setattr(viewer, "EMBED_BYTES", 10)
    viewer.write(trace, tmp_path / "viewer.html", folder / "overlay.mp4", painter.Layout(10, 10, 10))
    assert 'video.src = "overlay.mp4"' in (tmp_path / "viewer.html").read_text()


def test_the_page_plays_seeks_and_agrees_with_the_trace(page_folder, page):
    folder, _ = page_folder
    page.open(folder / "viewer.html")
    page.wait("avemo.video.readyState >= 2")
    assert page.evaluate("document.querySelector('h1').textContent") == "a <script> film.mp4"

    def settled():
        page.wait("!avemo.video.seeking")
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        time, shown, frame = page.evaluate("[avemo.video.currentTime, avemo.shown(), avemo.frame()]")
        assert abs(time - shown) <= 1.01 / FPS
        assert abs(frame - int(time * FPS + 1e-3)) <= 1
        text = page.evaluate("document.getElementById('trace').getAttribute('aria-valuetext')")
        valence = float(re.search(r"valence (-?[\d.]+)", text).group(1))
        assert valence == pytest.approx(frame / 100 - 0.5, abs=0.006)
        return time, text

    box = "document.getElementById('trace').getBoundingClientRect()"
    left, top = page.evaluate(f"[{box}.left, {box}.top]")
    x = page.evaluate("(() => { avemo.seek(1.5); return avemo.playheadX(); })()")
    assert "no face" in settled()[1]
    page.evaluate("avemo.seek(0)")
    page.click(left + x, top + 60)  # where the playhead was at 1.5 s
    assert settled()[0] == pytest.approx(1.5, abs=1 / FPS)
    page.key("ArrowRight")
    assert settled()[0] == pytest.approx(2.5, abs=1 / FPS)
    before = page.evaluate("avemo.frame()")
    page.key(".")
    settled()
    assert page.evaluate("avemo.frame()") == before + 1
    page.key("Home")
    assert settled()[0] == 0
    page.key("+")
    width = page.evaluate("avemo.view()[1] - avemo.view()[0]")
    assert width == pytest.approx(page.evaluate("avemo.data.end") / 2, abs=0.01)
    page.key("0")
    page.key(" ")
    page.wait("avemo.video.currentTime > 0.5")
    assert page.evaluate("document.getElementById('play').textContent") == "Pause"
    # While it plays, the playhead follows the picture.
    lag = page.evaluate("Math.abs(avemo.shown() - avemo.video.currentTime)")
    page.key(" ")
    assert lag < 0.25
    settled()


def test_the_page_fits_a_phone_and_has_names_for_a_screen_reader(page_folder, page):
    folder, _ = page_folder
    page.size(360, 740, mobile=True)
    page.open(folder / "viewer.html")
    page.wait("avemo.video.readyState >= 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = """[...document.querySelectorAll("button, select, canvas, video, audio")].filter(e =>
        !e.closest("[hidden]") && !(e.getAttribute("aria-label") || e.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    small = """[...document.querySelectorAll("button")].filter(e => e.getBoundingClientRect().height < 34).length"""
    assert page.evaluate(small) == 0
    assert page.evaluate("document.getElementById('trace').getBoundingClientRect().width") > 300
    keep = os.environ.get("AVEMO_SCREENSHOTS")
    if keep:
        page.screenshot(pathlib.Path(keep) / "phone.png")


@pytest.mark.parametrize("kind", ["several", "classes", "sound"])
def test_other_kinds_of_trace(kind, page, tmp_path):
    source = films.film(tmp_path / "a.mp4", seconds=SECONDS, sound=SECONDS)
    if kind == "sound":
        source = films.sound_file(tmp_path / "a.wav", SECONDS)
    trace = make_trace(source, 2 if kind == "several" else 1, ("happy", "sad") if kind == "classes" else ())
    found = recording.probe(source)
    layout = overlay.write(trace, found, tmp_path / "overlay.mp4")
    clip = tmp_path / "overlay.mp4"
    if layout is None:
        clip = tmp_path / "sound.m4a"
        overlay.write_sound(found, clip)
        assert not recording.probe(clip).picture
    viewer.write(trace, tmp_path / "viewer.html", clip, layout)
    write_png(trace, tmp_path / "trace.png")
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"
    page.open(tmp_path / "viewer.html")
    page.wait("avemo.video.readyState >= 1")
    page.evaluate("avemo.seek(3)")
    page.wait("!avemo.video.seeking")
    text = page.evaluate("document.getElementById('now').textContent")
    assert ("happy 0." if kind == "classes" else "valence 0.25") in text
    assert page.evaluate("document.getElementById('who').hidden") == (kind != "several")
    keep = os.environ.get("AVEMO_SCREENSHOTS")
    if keep:
        page.screenshot(pathlib.Path(keep) / f"{kind}.png")
