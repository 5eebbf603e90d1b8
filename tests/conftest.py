"""Every test runs strictly: eight host devices, no silent dtype or rank promotion, warnings are errors."""

import os

os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # The suite compiles far more than it computes.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    )
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytest_plugins = ("helpers.corpora",)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real corpora and weights (`AVEMO_DATA`, else ../shared/data beside the checkout)."""
    folder = pathlib.Path(os.environ.get("AVEMO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set AVEMO_DATA to a folder with the corpora")
    return folder
