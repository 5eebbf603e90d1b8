"""Folders in which libraries keep what they computed: one that can be written, on any machine.

Numba, which librosa uses, refuses to be imported if it can write neither beside the installed package nor below the
home folder; Matplotlib complains on every start. Both then get a private folder for the time of the process.
"""

import atexit
import importlib.util
import os
import pathlib
import shutil
import tempfile


def make_writable() -> None:
    """Gives Numba and Matplotlib a temporary folder if theirs cannot be written. Call it before they are used."""
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    config = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config")
    librosa = importlib.util.find_spec("librosa")
    installed = pathlib.Path(librosa.origin).parent / "core" / "__pycache__" if librosa and librosa.origin else home
    if "NUMBA_CACHE_DIR" not in os.environ and not (is_writable(installed) or is_writable(home / "numba")):
        os.environ["NUMBA_CACHE_DIR"] = _temporary("numba")
    if "MPLCONFIGDIR" not in os.environ and not (
        is_writable(config / "matplotlib") and is_writable(home / "matplotlib")
    ):
        os.environ["MPLCONFIGDIR"] = _temporary("matplotlib")


def user_folder() -> pathlib.Path:
    """Returns the user's cache folder of avemo, `$XDG_CACHE_HOME/avemo` or `~/.cache/avemo`; it need not exist.

    Raises:
      RuntimeError: the user has no home.
    """
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "avemo"


def _home() -> pathlib.Path:
    return pathlib.Path(os.path.expanduser("~"))


def nearest(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder, or the nearest above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def is_writable(folder: pathlib.Path) -> bool:
    """Whether files can be made in a folder, or in the nearest that exists above it."""
    folder = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary(name: str) -> str:
    # Not a fixed name: what is found in a cache is run, and others can write below /tmp.
    folder = tempfile.mkdtemp(prefix=f"avemo-{name}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
