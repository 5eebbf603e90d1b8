import errno

import pytest

from media import files
from media.errors import UserError


def test_published_files_appear_together_on_success(tmp_path):
    output = tmp_path / "out"
    with files.publish(output) as folder:
        (folder / "a.txt").write_text("a")
        assert not (output / "a.txt").exists()
    assert [path.name for path in output.iterdir()] == ["a.txt"]


def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path):
    def write():
        with files.publish(tmp_path / "out") as folder:
            (folder / "a.txt").write_text("a")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), ValueError("a fault")])
def test_other_errors_are_not_blamed_on_the_output(error, tmp_path):
    with pytest.raises(type(error)), files.publish(tmp_path / "out"):
        raise error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["text", b"\x00bytes"])
def test_an_atomic_write_replaces_the_file_and_leaves_no_other(content, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    files.write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_atomic_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "half \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed_and_what_is_in_use_is_not(tmp_path):
    abandoned, other = tmp_path / ".work-killed", tmp_path / "result"
    for path in (abandoned, other):
        path.mkdir()
        (path / "half").write_text("")
    with files.own_folder(tmp_path, ".work-") as first:
        assert not abandoned.exists()
        with files.own_folder(tmp_path, ".work-") as second:
            assert first.exists()
            assert second.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: None)
    new, target = tmp_path / "new", tmp_path / "target"
    for content in ("first", "second"):
        new.mkdir()
        (new / "a").write_text(content)
        files.swap(new, target)
        assert (target / "a").read_text() == content
        if exchange and content == "second":
            assert (new / "a").read_text() == "first"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device.: free some space and run the same command again"),
        (PermissionError(errno.EACCES, "x", "/its/file"), "/its/file cannot be opened .Permission denied."),
        (ValueError("a library's own"), "No space left on device"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_line(tmp_path, error, says):
    needed = 1 << 60 if isinstance(error, ValueError) else 0
    with pytest.raises(UserError, match=says), files.write_errors(tmp_path / "not" / "yet", needed=needed):
        raise error
    with pytest.raises(ValueError, match="a fault"), files.write_errors(tmp_path):
        raise ValueError("a fault")


def test_an_error_is_one_line_that_controls_no_terminal():
    assert str(UserError("a tensor\nnamed \x1b[2J is unknown")) == "a tensor named  [2J is unknown"
