# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a flow at one scale: units of invertible modules, with noise channels between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .layers import Transform, zero_conv


class CrossUnit(nn.Module):
    """
    More channels between two units: h = mu + sigma e, e normal (DenseFlow, section 3.1).

    mu, sigma follow from all that this scale has seen. The likelihood becomes a lower bound,
    ln p(z) >= E_e [ ln p(z, h) - ln N(e) + sum ln sigma ]; going back h is dropped.
    """

    def __init__(self, seen: int, growth: int, width: int = 32) -> None:
        super().__init__()
        self.growth = growth
        self.net = nn.Sequential(
            nn.Conv2d(seen, width, 3, padding=1),
            nn.ReLU(),
            zero_conv(width, 2 * growth),
        )

    def forward(
        self, seen: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (h, sum ln sigma) of the maps so far and e, float (B, growth, H, W)."""
        mean, raw = self.net(seen).chunk(2, 1)
        log_sigma = 2.0 * torch.tanh(raw / 2.0)
        return mean + log_sigma.exp() * noise, log_sigma.flatten(1).sum(1)


@dataclass(frozen=True)
class Scaled:
    """What one scale gives: its output, its log-determinants (B,), the noise that it drew."""

    output: torch.Tensor
    log_det: torch.Tensor
    noise: list[torch.Tensor]


class Scale(nn.Module):
    """
    Units at one scale; crossings: one behind each of the first units (may be none).

    channels: of the input. out_channels: of the output, noise included.
    """

    def __init__(
        self, channels: int, units: Sequence[Transform], crossings: Sequence[CrossUnit] = ()
    ) -> None:
        super().__init__()
        self.units, self.crossings = nn.ModuleList(units), nn.ModuleList(crossings)
        self.channels = channels
        self.out_channels = channels + sum(crossing.growth for crossing in crossings)

    def forward(self, x: torch.Tensor, noise: Iterator[torch.Tensor] | None = None) -> Scaled:
        """Map (B, channels, H, W); noise: what to take in the place of drawn noise."""
        total, seen, used = x.new_zeros(len(x)), [], []
        for index, unit in enumerate(self.units):
            seen.append(x)
            x, log_det = unit(x)
            total = total + log_det
            if index < len(self.crossings):
                crossing = self.crossings[index]
                shape = (len(x), crossing.growth, *x.shape[2:])
                used.append(x.new_empty(shape).normal_() if noise is None else next(noise))
                more, log_sigma = crossing(torch.cat(seen, 1), used[-1])
                x, total = torch.cat((x, more), 1), total + log_sigma
        return Scaled(x, total, used)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Return the input of an output; noise channels are dropped on the way."""
        for index in reversed(range(len(self.units))):
            if index < len(self.crossings):
                y = y[:, : -self.crossings[index].growth]
            y = self.units[index].inverse(y)
        return y
