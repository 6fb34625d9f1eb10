# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
From whole grey values to continuous ones: u in [0, 1) is added to every value.

ln P(x) >= E_u [ ln p(x + u) - ln q(u | x) ] (Theis et al. 2016; Ho et al. 2019, Flow++).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from .layers import zero_conv

LEVELS = 256
DEQUANTISATIONS = ('uniform', 'variational')


class UniformDequantiser(nn.Module):
    """u uniform: ln q = 0."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (u, ln q(u) float (B,)) of whole values 0 to 255, float (B, C, H, W)."""
        return torch.rand_like(pixels), pixels.new_zeros(len(pixels))


class VariationalDequantiser(nn.Module):
    """u = sigmoid(a), a normal with mean and deviation from a small network of the picture."""

    def __init__(self, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            zero_conv(width, 2 * channels),
        )

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (u, ln q(u | pixels)), see UniformDequantiser."""
        mean, raw = self.net(pixels / LEVELS - 0.5).chunk(2, 1)
        log_sigma = 2.0 * torch.tanh(raw / 2.0)
        noise = torch.randn_like(mean)
        logit = mean + log_sigma.exp() * noise
        slope = functional.logsigmoid(logit) + functional.logsigmoid(-logit)
        log_q = standard_normal(noise) - (log_sigma + slope).flatten(1).sum(1)
        return torch.sigmoid(logit), log_q


def dequantiser(kind: str) -> nn.Module:
    """Return the dequantiser of a kind of DEQUANTISATIONS."""
    return VariationalDequantiser() if kind == 'variational' else UniformDequantiser()


def standard_normal(values: torch.Tensor) -> torch.Tensor:
    """Return ln N(values; 0, I) of each picture, float (B,)."""
    constant = 0.5 * math.log(2.0 * math.pi)
    return -(0.5 * values**2 + constant).flatten(1).sum(1)
