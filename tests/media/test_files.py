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
