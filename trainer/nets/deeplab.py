# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
DeepLabV3+ (Chen et al. 2018) behind its trunk: the frozen host of RPL as published.

ASPP and 1x1 on the trunk's map, upsampled beside a 1x1 of the fine map, then the classifier: two
3x3 and a 1x1. It offers what heads.rpl_block.Host asks for, so the same code trains a block on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError

from .aspp import BRANCHES, DILATIONS, Aspp


@dataclass(frozen=True)
class DeepLabShape:
    """
    Sizes of the decoder (defaults: the published WiderResNet38 host).

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
    """

    align_corners = True

    def __init__(self, shape: DeepLabShape) -> None:
        super().__init__()
        self.shape, self.classes, self.upsampling = shape, shape.classes, shape.upsampling
        self.layers = shape.layers
        self.aspp = Aspp(shape.trunk, shape.width, shape.dilations)
        self.reduce = nn.Conv2d(BRANCHES * shape.width, shape.width, 1, bias=False)
        self.project = nn.Conv2d(shape.fine, shape.fine_width, 1, bias=False)
        self.classifier = Classifier(self.feature_width, shape.width, shape.classes)

    @property
    def trunk_width(self) -> int:
        """Channels of the trunk's map."""
        return self.shape.trunk

    @property
    def feature_width(self) -> int:
        """Channels that enter the classifier: fine ones first, 304 as published."""
        return self.shape.fine_width + self.shape.width

    def feature(self, *maps: torch.Tensor) -> torch.Tensor:
        """Map the two maps to the feature (B, H, W, fine_width + width)."""
        fine, trunk = (one.permute(0, 3, 1, 2).contiguous() for one in maps)
        coarse = self.reduce(self.aspp(trunk))
        size = fine.shape[2:]
        upsampled = functional.interpolate(coarse, size, mode='bilinear', align_corners=True)
        return torch.cat([self.project(fine), upsampled], 1).permute(0, 2, 3, 1)

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        """Return the closed-set logits (B, H, W, K)."""
        logits: torch.Tensor = self.classifier(self.feature(*maps).float())
        return logits
