"""Compiled programs, kept in the run folder."""

import jax
from etils import epath


def keep(workdir: str | epath.Path) -> None:
    """Keeps compiled programs in the run folder, unless a cache folder is set already (`JAX_COMPILATION_CACHE_DIR`)."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # options are defined at run time
        jax.config.update("jax_compilation_cache_dir", str(epath.Path(workdir) / "compilation_cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
