# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
RPL: residual pattern learning on a frozen closed-set network (Liu et al. 2023).

An ASPP-shaped block over the trunk's map gives a residual, which is added to the feature that
enters the frozen classifier. The score is the energy of the logits with the residual; the labels
are those of the frozen network without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ...calibration.monotone_curve import CalibrationCurve
from ..calibrated import OneScoreHead
from .block import ResidualBlock, to_feature_grid
from .losses import energy

SMOOTHING, SIGMA = 7, 1.0
"""Sides and sigma of the Gaussian over the score map, in its cells."""


class Smoothing(nn.Module):
    """Gaussian over (B, H, W), 7 x 7 cells, sigma 1, reflected at the borders; sides above 3."""

    kernel: torch.Tensor

    def __init__(self, size: int = SMOOTHING, sigma: float = SIGMA) -> None:
        super().__init__()
        self.margin = size // 2
        line = torch.exp(-0.5 * ((torch.arange(size) - self.margin) / sigma) ** 2)
        kernel = torch.outer(line, line)
        self.register_buffer('kernel', (kernel / kernel.sum())[None, None])

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Smooth maps float (B, H, W)."""
        padded = functional.pad(maps[:, None], (self.margin,) * 4, mode='reflect')
        return functional.conv2d(padded, self.kernel)[:, 0]


class FeatureAndResidual(nn.Module):
    """The decoder stage: the host's feature and the residual side by side, (B, H, W, 2 F)."""

    def __init__(self, host: nn.Module, block: ResidualBlock) -> None:
        super().__init__()
        self.host, self.block = host, block

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return both from tokens (B, h, w, C) per layer."""
        values = [layer.float() for layer in tokens]
        feature = self.host.feature(*values)
        coarse = self.block.last(self.block.embed(values[-1]))
        return torch.cat([feature, to_feature_grid(self.host, coarse, feature.shape[1:3])], -1)


class RplHead(OneScoreHead):
    """
    Host and block as one head: decoder stage (feature, residual), then classifier and energy.

    The classifier is in the head's float32 graph: logits in half precision would leave the energy
    few distinct values.
    """

    head_inputs = ('features',)

    def __init__(
        self,
        host: nn.Module,
        block: ResidualBlock,
        classes: Sequence[str],
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__('rpl', host.layers, classes, host.upsampling)
        self.decoder, self.classifier = FeatureAndResidual(host, block), host.classifier
        self.smoothing = Smoothing()
        self.finish(curve)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (smoothed energy, labels of the frozen network) of the decoder's output."""
        feature, residual = inputs[0].chunk(2, -1)
        labels = self.classifier(feature).argmax(-1).to(torch.uint8)
        return self.smoothing(energy(self.classifier(feature + residual))), labels
