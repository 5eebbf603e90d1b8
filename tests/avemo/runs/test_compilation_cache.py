import os
import stat
import time

import jax
import pytest

from avemo.runs import compilation_cache


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """No cache is chosen; the user's own is in `tmp_path`."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    monkeypatch.setenv("AVEMO_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache" / compilation_cache.NAME
    for name, value in before.items():
        jax.config.update(name, value)


def chosen():
    return jax.config.jax_compilation_cache_dir


def test_programs_are_kept_where_only_the_user_can_write(unset):
    compilation_cache.keep()
    assert chosen() == str(unset)
    assert stat.S_IMODE(unset.stat().st_mode) == 0o700
    old, new = unset / "old-cache", unset / "new-cache"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, time.time() - 2 * compilation_cache.KEPT))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.keep()
    assert [path.name for path in unset.iterdir()] == ["new-cache"]


@pytest.mark.parametrize("how", ["others may write", "link", "file", "owner"])
def test_a_folder_that_others_can_fill_is_not_used(unset, how, monkeypatch, tmp_path):
    unset.parent.mkdir()
    if how == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        unset.symlink_to(tmp_path / "theirs")
    elif how == "file":
        unset.write_text("")
    else:
        unset.mkdir(mode=0o700)
        if how == "owner":
            monkeypatch.setattr(os, "geteuid", lambda: unset.stat().st_uid + 1)
        else:
            unset.chmod(0o770)
    compilation_cache.keep()
    assert chosen() is None
