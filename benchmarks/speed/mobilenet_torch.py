"""The compact student's network (`avemo.models.compact`) in PyTorch: the same layers and widths, random weights."""

import torch
from torch import nn

from avemo.models.compact import STAGES


def unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Module:
    """Convolution, BatchNorm and, if `active`, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(outputs, eps=1e-3)]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if active else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection, plus the input if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        expand = [unit(inputs, wide)] if expansion != 1 else []
        self.body = nn.Sequential(*expand, unit(wide, wide, 3, stride, wide), unit(wide, outputs, active=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [B, outputs, ⌈H/stride⌉, ⌈W/stride⌉] for [B, inputs, H, W]."""
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Sequential):
    """[B, 3, H, W] -> [B, 1280, ⌈H/32⌉, ⌈W/32⌉]."""

    def __init__(self):
        blocks, inputs = [], 32
        for expansion, features, repeats, stride in STAGES:
            for j in range(repeats):
                blocks.append(InvertedResidual(inputs, features, expansion, stride if j == 0 else 1))
                inputs = features
        super().__init__(unit(3, 32, 3, 2), *blocks, unit(inputs, 1280))
