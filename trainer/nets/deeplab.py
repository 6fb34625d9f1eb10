# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
DeepLabV3+ (Chen et al. 2018) behind its trunk: the frozen host of RPL as published.

ASPP (atrous spatial pyramid pooling: one map seen at several reaches) and 1x1 on the trunk's map,
upsampled beside a 1x1 of the fine map, then the classifier: two 3x3 and a 1x1. It offers what
RPL's Host asks for, so the same code trains a block, which has such an ASPP too, on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError

DILATIONS = (12, 24, 36)
BRANCHES = 5
"""What is concatenated: image pooling, 1x1, and one 3x3 a dilation."""
REFERENCE_ROWS = 128
"""Rows of the grid that DILATIONS are meant for: 1024 pixels at stride 8."""


class Aspp(nn.Module):
    """
    Image pooling, 1x1 and three dilated 3x3, each conv-BatchNorm-ReLU, concatenated in this order.

    dim: channels that come in. width: of each branch, 5 width come out.
    """

    def __init__(self, dim: int, width: int, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        if len(dilations) != BRANCHES - 2:
            raise ValueError(f'{BRANCHES - 2} dilations are needed, not {list(dilations)}')
        self.pooled = conv_norm(dim, width)
        self.branches = nn.ModuleList(
            [conv_norm(dim, width), *(conv_norm(dim, width, 3, rate) for rate in dilations)]
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (B, dim, h, w) to (B, 5 width, h, w)."""
        pooled = self.pooled(values.mean((2, 3), keepdim=True)).expand(-1, -1, *values.shape[2:])
        return torch.cat([pooled, *(branch(values) for branch in self.branches)], 1)


def conv_norm(dim: int, width: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return convolution without bias, BatchNorm and ReLU; the size stays."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(dim, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def scaled_dilations(rows: int) -> tuple[int, ...]:
    """
    Return the dilations that reach as far over an image on a grid of so many rows.

    12, 24 and 36 cells of 128 rows are 9, 19 and 28 % of an image's height: 3, 5 and 8 cells of
    27 rows.
    """
    return tuple(max(1, int(rate * rows / REFERENCE_ROWS + 0.5)) for rate in DILATIONS)


@dataclass(frozen=True)
class DeepLabShape:
    """
    Sizes of the decoder (defaults: the published host's, on WiderResNet38).

    trunk, fine: channels of the trunk's two maps. upsampling: fine cells per trunk cell along each
    axis. width: of ASPP's branches and the classifier. fine_width: of the fine map's 1x1.
    layers: names of the two maps.
    """

    trunk: int = 4096
    fine: int = 128
    upsampling: int = 4
    classes: int = 19
    width: int = 256
    fine_width: int = 48
    dilations: tuple[int, ...] = DILATIONS
    layers: tuple[str, ...] = ('fine', 'trunk')

    def __post_init__(self) -> None:
        least = min(self.trunk, self.fine, self.upsampling, self.width, self.fine_width)
        if min(least, self.classes) < 1:
            raise ConfigError(f'{self}: every size must be at least 1')


class Classifier(nn.Module):
    """Two 3x3 with BatchNorm and ReLU, then 1x1; feature (B, H, W, F) to logits (B, H, W, K)."""

    def __init__(self, dim: int, width: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(dim, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, classes, 1, bias=False),
        )

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.layers(feature.permute(0, 3, 1, 2).contiguous())
        return logits.permute(0, 2, 3, 1)


class DeepLabHost(nn.Module):
    """
    The network behind the trunk.

    Inputs are the trunk's maps, channels last: `fine` (B, H, W, C) and `trunk` (B, h, w, C'), with
    H = upsampling x h. align_corners: as published, every upsampling maps corners onto corners.
    trunk_width: channels of the trunk's map. feature_width: channels that enter the classifier,
    fine ones first, 304 as published.
    """

    align_corners = True

    def __init__(self, shape: DeepLabShape) -> None:
        super().__init__()
        self.shape, self.classes, self.upsampling = shape, shape.classes, shape.upsampling
        self.layers, self.trunk_width = shape.layers, shape.trunk
        self.feature_width = shape.fine_width + shape.width
        self.aspp = Aspp(shape.trunk, shape.width, shape.dilations)
        self.reduce = nn.Conv2d(BRANCHES * shape.width, shape.width, 1, bias=False)
        self.project = nn.Conv2d(shape.fine, shape.fine_width, 1, bias=False)
        self.classifier = Classifier(self.feature_width, shape.width, shape.classes)

    def feature(self, *maps: torch.Tensor) -> torch.Tensor:
        """Map the two maps to the feature (B, H, W, fine_width + width)."""
        fine, trunk = (one.permute(0, 3, 1, 2).contiguous() for one in maps)
        coarse = self.reduce(self.aspp(trunk))
        size = fine.shape[2:]
        upsampled = functional.interpolate(coarse, size, mode='bilinear', align_corners=True)
        return torch.cat([self.project(fine), upsampled], 1).permute(0, 2, 3, 1)

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        """Return the closed-set logits (B, H, W, K)."""
        return self.classifier(self.feature(*maps).float())
