"""A folder's files are found whatever they are called, and nothing is taken for input that was not put there."""

import os
import shutil

import pytest

from media import audio, listing, video
from media.files import shown


def names(folder, **options):
    return [str(path.relative_to(folder)) for path in listing.files(folder, **options)]


def write(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_hidden_and_system_files_and_own_output_are_never_input(tmp_path):
    write(tmp_path, "b.mp4", "a/c.mp4", "._b.mp4", ".Trash-1000/d.mp4", "@eaDir/b.mp4/e.mp4", "__MACOSX/f.mp4")
    write(tmp_path, "out/b/trace.csv", "out/b/overlay.mp4", "out/b/viewer.html", "out/c/viewer.html", "out/c/sound.m4a")
    write(tmp_path, "data/own/1.0.0/features.json", "data/own/1.0.0/dataset_info.json", "data/own/1.0.0/f.mp4")
    write(tmp_path, "given/g.mp4", "mine/overlay.mp4")
    found = [name for name in names(tmp_path, skip=[tmp_path / "given"]) if not name.endswith((".csv", ".html"))]
    assert found == ["a/c.mp4", "b.mp4", "mine/overlay.mp4"]


def test_links_that_form_a_loop_are_followed_once(tmp_path):
    write(tmp_path, "a/b/c.mp4")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "again").symlink_to(tmp_path / "a" / "b")
    assert names(tmp_path) == ["a/b/c.mp4"]


def test_a_folder_that_cannot_be_read_is_reported(tmp_path):
    write(tmp_path, "a.mp4")
    errors = []
    assert names(tmp_path / "none", unreadable=errors.append) == []
    assert [error.filename for error in errors] == [str(tmp_path / "none")]
    with pytest.raises(FileNotFoundError):
        names(tmp_path / "none")


NAMES = ("2024-05-01T12:30:00.mp4", "12:30/a.mp4", "a\\c.mp4", "http:x.mp4", "10%d.mp4", "m\udce4de.mp4")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_opened(tmp_path, draw, monkeypatch, name):
    images, times, sound = draw.talking(0.2, 25)
    source = draw.video(tmp_path / "plain.mp4", images, times, sound)
    monkeypatch.chdir(tmp_path)
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    shutil.copy(source, name)
    assert len(list(video.decode(name))) == 5  # relative, so that a colon comes before the first slash
    assert audio.load(name).duration > 0.1


def test_a_name_in_latin_1_can_be_shown():
    assert shown(os.fsdecode(b"m\xe4de.mp4")) == "mäde.mp4"
    assert shown("für.mp4") == "für.mp4"
