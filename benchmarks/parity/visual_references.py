"""facenet-pytorch's and torchvision's networks with the weights of a case, run in PyTorch."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parity import references, weights
from benchmarks.parity.visual_cases import SEED, Case, Result, probe

PACKAGES = {"facenet": "facenet-pytorch", "densenet": "torchvision"}

# Every stage that facenet-pytorch's forward pass names.
STAGES = (
    "conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1", "mixed_6a",
    "repeat_2", "mixed_7a", "repeat_3", "block8", "avgpool_1a", "last_linear", "last_bn",
)  # fmt: skip


def version(case: Case) -> str:
    """Returns the reference's package and version."""
    return references.version(PACKAGES[case.kind])


def run(case: Case, train: bool, dtype: type = np.float32) -> Result:
    """Returns outputs by stage, and the gradients of the probe loss and the updated statistics by our paths."""
    network = _network(case).train(train).to(getattr(torch, np.dtype(dtype).name))
    outputs = _outputs(network, case, references.images(case.scale(case.images).astype(dtype)))
    result = list(outputs.values())[-1]
    above = torch.tensor(probe(references.channels_last(result).shape).astype(dtype))
    (result * (above.movedim(-1, 1) if result.ndim == 4 else above)).sum().backward()
    gradients = _by_our_path(case, {k: v.grad for k, v in network.named_parameters() if v.grad is not None})
    statistics = _by_our_path(case, {k: v for k, v in network.state_dict().items() if "running" in k})
    return {name: references.channels_last(value) for name, value in outputs.items()}, gradients, statistics


def save(case: Case, file: Path, *, zipped: bool) -> None:
    """Writes the network's state dict in PyTorch's present format (`zipped`) or in that before 1.6."""
    torch.save(_network(case).state_dict(), file, _use_new_zipfile_serialization=zipped)


def _network(case: Case) -> torch.nn.Module:
    if case.kind == "facenet":
        network = references.facenet().InceptionResnetV1(dropout_prob=0.0)
        for i, count in enumerate(case.numbers["repeats"], start=1):
            setattr(network, f"repeat_{i}", getattr(network, f"repeat_{i}")[:count])
    else:
        network = references.densenet().DenseNet(**case.numbers)
    references.load(network, weights.torch_state(network.state_dict(), case.place, SEED))
    return network


def _outputs(network: torch.nn.Module, case: Case, x: torch.Tensor) -> dict[str, torch.Tensor]:
    if case.kind == "densenet":
        return {"features": torch.nn.functional.relu(network.features(x))}
    seen: dict[str, torch.Tensor] = {}

    def keep(stage: str, module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        seen[stage] = output

    for stage in STAGES:
        getattr(network, stage).register_forward_hook(functools.partial(keep, stage))
    result = network(x)
    return {**seen, "avgpool_1a": seen["avgpool_1a"].flatten(1), "embedding": result}


def _by_our_path(case: Case, tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    placed = (case.place(name, value.numpy()) for name, value in tensors.items())
    return {"/".join(path[1:]): value for path, value in placed}
