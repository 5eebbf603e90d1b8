"""Compiled programs, kept in a folder that belongs to the user alone.

A compiled program is machine code, and JAX runs what it finds under the right name. So no folder that may come from
somebody else is ever used: a `compilation_cache` inside a run, as older versions left it, is ignored.
"""

import os
import pathlib
import stat
import time

import jax

from avemo.runs import installed

NAME = ".compiled"  # no release has a name that begins with a dot
KEPT = 30 * 24 * 3600  # s


def keep() -> None:
    """Keeps compiled programs for later commands, unless a folder is set already (`JAX_COMPILATION_CACHE_DIR`).

    Without a folder that only this user can write, every command compiles its programs again.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # options are defined at run time
        place = _private()
        if place is not None:
            _drop_old(place)
            jax.config.update("jax_compilation_cache_dir", str(place))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def _private() -> pathlib.Path | None:
    """The folder, made if there is none; None if it cannot be written, is a link, or others own it or can write it."""
    try:
        place = installed.folder() / NAME
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return place if own and os.access(place, os.W_OK) else None


def _drop_old(place: pathlib.Path) -> None:
    """Removes programs that were compiled more than `KEPT` seconds ago."""
    now = time.time()
    for path in place.iterdir():
        try:
            if now - path.lstat().st_mtime > KEPT:
                path.unlink()
        except OSError:  # another command has removed it
            continue
