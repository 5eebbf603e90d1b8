"""Every test runs strictly: eight host devices, no silent dtype or rank promotion, warnings are errors.

The suite compiles far more than it computes. So programs are compiled with little optimisation, are shared on disk by
all processes of a session, and leave memory before they pile up.
"""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # Compiles faster. Newer releases of XLA have no such flag, and stop at one that they do not know.
        "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jax") < "0.11" else "",
    )
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers of xdist and the tests' subprocesses inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="avemo-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import contextlib
import ctypes
import functools
import gc
import pathlib

import hypothesis
import jax
import psutil
import pytest

# No deadline for a single example: on a busy machine the first one is slow.
hypothesis.settings.register_profile("avemo", deadline=None)
hypothesis.settings.load_profile("avemo")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Grain looks for a record's place among 65,536: in a data set of eight that takes 6 ms a record. The tests ask for the
# same few places over and over. The module is Grain's own, so another release may lack it: the tests are then slower.
with contextlib.suppress(ImportError, AttributeError):
    from grain._src.python.experimental.index_shuffle.python import index_shuffle_module

    index_shuffle_module.index_shuffle = functools.cache(index_shuffle_module.index_shuffle)

ROOT = pathlib.Path(__file__).resolve().parents[1]
MEMORY_LIMIT = 1.5e9  # bytes
# The slowest files, so that the workers of `make test` end together.
HEAVIEST_FIRST = (
    *(
        "test_configs.py",
        "test_devices.py",
        "test_sweep.py",
        "test_predict.py",
        "test_train.py",
        "test_seeds_together.py",
        "test_aot.py",
        "test_legacy.py",
    ),
    *("test_release.py", "test_gradients.py", "test_analysis.py", "test_losses.py"),
)
pytest_plugins = ("helpers.corpora",)


def pytest_configure(config):
    # The other worker may still be writing the entry; the program is then compiled here too.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry")


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(HEAVIEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Drops compiled programs once the process has grown large."""
    if psutil.Process().memory_info().rss > MEMORY_LIMIT:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real corpora and weights (`AVEMO_DATA`, else ../shared/data beside the checkout)."""
    folder = pathlib.Path(os.environ.get("AVEMO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set AVEMO_DATA to a folder with the corpora")
    return folder
