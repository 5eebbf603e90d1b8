"""The PyTorch references. Single files are imported, because neither package is needed as a whole.

facenet-pytorch pins old versions of PyTorch and torchvision, and torchvision needs its compiled operators; the two
network definitions use neither. `pip install --no-deps -r requirements-parity-nodeps.txt` is enough.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


@functools.cache
def facenet() -> types.ModuleType:
    """Returns facenet-pytorch's `models/inception_resnet_v1.py`."""
    folder = _folder("facenet_pytorch")
    _shell("facenet_pytorch", folder)
    _shell("facenet_pytorch.models", folder / "models")
    return importlib.import_module("facenet_pytorch.models.inception_resnet_v1")


@functools.cache
def densenet() -> types.ModuleType:
    """Returns torchvision's `models/densenet.py`."""
    folder = _folder("torchvision")
    for package in ("", ".models", ".transforms"):
        _shell("torchvision" + package, folder / package.removeprefix("."))
    presets = _shell("torchvision.transforms._presets")
    presets.ImageClassification = object
    utils = _shell("torchvision.utils")
    utils._log_api_usage_once = lambda _: None
    return importlib.import_module("torchvision.models.densenet")


@functools.cache
def torchmetrics_ccc() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Returns torchmetrics' `concordance_corrcoef`.

    torchmetrics imports torchvision if it is installed. Here only its files are, so we say that it is not installed.
    """
    from lightning_utilities.core.imports import RequirementCache

    present = RequirementCache.__bool__
    RequirementCache.__bool__ = lambda cache: "torchvision" not in str(cache.requirement) and present(cache)
    try:
        return importlib.import_module("torchmetrics.functional.regression").concordance_corrcoef
    finally:
        RequirementCache.__bool__ = present


def version(package: str) -> str:
    """Returns the name and the installed version, such as "torchvision 0.21.0"."""
    return f"{package} {importlib.metadata.version(package)}"


def load(module: torch.nn.Module, state: dict[str, np.ndarray]) -> None:
    """Loads random weights into `module`; only batch counters and the classifier, which ours lack, may be missing."""
    missing, unexpected = module.load_state_dict({k: torch.tensor(v.copy()) for k, v in state.items()}, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked") and "classifier" not in name]
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")


def images(array: np.ndarray) -> torch.Tensor:
    """Converts NHWC to NCHW."""
    return torch.tensor(np.moveaxis(array, -1, 1).copy())


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    """Converts NCHW to NHWC; returns tensors of other ranks unchanged."""
    array = tensor.detach().numpy()
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: pip install --no-deps {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _shell(name: str, folder: Path | None = None) -> types.ModuleType:
    """Registers an empty package that finds its submodules in `folder` without running its `__init__`."""
    if name not in sys.modules:
        module = types.ModuleType(name)
        if folder:
            module.__path__ = [str(folder)]
        sys.modules[name] = module
    return sys.modules[name]
