# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The networks inside couplings: a small one, and a densely connected one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .layers import zero_conv


def small_net(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Return 3x3, 1x1 and 3x3 convolutions with ReLU between (Glow, section 5)."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, width, 1), nn.ReLU()),
        zero_conv(width, outputs),
    )


class DenseNet(nn.Module):
    """
    Layers that each see everything before them (DenseFlow's coupling network).

    width: of the first convolution. depth: layers, each adding `growth` gated channels.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, growth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.layers = nn.ModuleList(
            _DenseLayer(width + index * growth, growth) for index in range(depth)
        )
        self.last = zero_conv(width + depth * growth, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float (B, inputs, H, W) to (B, outputs, H, W)."""
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        result: torch.Tensor = self.last(functional.relu(x))
        return result


class _DenseLayer(nn.Module):
    """ReLU, 1x1, ReLU, 3x3 with a gate for every output."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, growth, 1)
        self.conv = nn.Conv2d(growth, 2 * growth, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.reduce(functional.relu(x)))
        return functional.glu(self.conv(hidden), 1)
