"""Libraries find a folder for their caches on a machine where nothing of the user's can be written."""

import os
import subprocess
import sys

from media import caches


def test_caches_move_to_a_temporary_folder_that_vanishes(tmp_path):
    code = (
        "import os, tempfile\n"
        "real = tempfile.TemporaryFile\n"
        "def read_only(*arguments, dir=None, **rest):\n"
        "    raise OSError(30, 'Read-only file system')\n"
        "tempfile.TemporaryFile = read_only\n"
        "from media import caches\n"
        "caches.make_writable()\n"
        "for name in ('NUMBA_CACHE_DIR', 'MPLCONFIGDIR'):\n"
        "    assert os.stat(os.environ[name]).st_mode & 0o777 == 0o700\n"
        "    print(os.environ[name])\n"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR")}
    environment = {**kept, "HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert os.listdir(tmp_path) == []


def test_folders_that_are_set_or_writable_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    caches.make_writable()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"
    assert "MPLCONFIGDIR" not in os.environ
