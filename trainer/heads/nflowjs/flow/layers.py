# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Invertible maps of feature maps (Glow, Kingma and Dhariwal 2018; RealNVP, Dinh et al. 2017).

Each takes float (B, C, H, W) of any H and W. forward gives (y, log |det dy/dx|), the latter float
(B,); inverse gives x of y. Both are differentiable. With them the networks inside couplings, and
what makes whole grey values continuous: u in [0, 1) is added to every value,
ln P(x) >= E_u [ ln p(x + u) - ln q(u | x) ] (Theis et al. 2016; Ho et al. 2019, Flow++).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

LEVELS = 256
DEQUANTISATIONS = ('uniform', 'variational')


class Transform(nn.Module, ABC):
    """An invertible map that keeps the shape."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return y and the log-determinant of each image."""

    @abstractmethod
    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Return the x whose forward is y."""


class ActNorm(Transform):
    """
    Scale and shift of every channel (Glow, section 3.1).

    The first batch seen in training mode sets both, so that it leaves with mean 0 and variance 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer('ready', torch.zeros((), dtype=torch.bool))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training and not self.ready:
            self._fit(x.detach())
        y = (x + self.shift) * self.log_scale.exp()
        pixels = x.shape[2] * x.shape[3]
        return y, (pixels * self.log_scale.sum()).expand(len(x))

    @torch.no_grad()
    def _fit(self, x: torch.Tensor) -> None:
        variance, mean = torch.var_mean(x, (0, 2, 3), keepdim=True, correction=0)
        self.shift.copy_(-mean)
        self.log_scale.copy_(-0.5 * variance.clamp(min=1e-6).log())
        self.ready.fill_(True)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y * (-self.log_scale).exp() - self.shift


class InvertibleConv(Transform):
    """1x1 convolution with a square matrix, a rotation to begin with (Glow, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = x.shape[2] * x.shape[3]
        log_det = pixels * torch.linalg.slogdet(self.matrix)[1]
        return functional.conv2d(x, self.matrix[:, :, None, None]), log_det.expand(len(x))

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(y, torch.linalg.inv(self.matrix)[:, :, None, None])


class AffineCoupling(Transform):
    """
    Scale and shift of the later channels by a network of the first ones; then both swap places.

    net: (B, C // 2, H, W) to (B, 2 (C - C // 2), H, W). The log-scale is 2 tanh(u / 2), in
    (-2, 2): no image can make it explode.
    """

    def __init__(self, channels: int, net: nn.Module) -> None:
        super().__init__()
        self.first = channels // 2
        self.net = net

    def _scale_shift(self, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw, shift = self.net(known).chunk(2, 1)
        return 2.0 * torch.tanh(raw / 2.0), shift

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known, rest = x[:, : self.first], x[:, self.first :]
        log_scale, shift = self._scale_shift(known)
        moved = rest * log_scale.exp() + shift
        return torch.cat((moved, known), 1), log_scale.flatten(1).sum(1)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        later = y.shape[1] - self.first
        moved, known = y[:, :later], y[:, later:]
        log_scale, shift = self._scale_shift(known)
        return torch.cat((known, (moved - shift) * (-log_scale).exp()), 1)


class Chain(Transform):
    """Transforms one after the other."""

    def __init__(self, steps: Sequence[Transform]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, log_det = step(x)
            total = total + log_det
        return x, total

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        for step in reversed(self.steps):
            y = step.inverse(y)
        return y


def glow_step(channels: int, net: nn.Module) -> Chain:
    """Return one module: ActNorm, 1x1 convolution, affine coupling with a channel swap."""
    return Chain([ActNorm(channels), InvertibleConv(channels), AffineCoupling(channels, net)])


def zero_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution of zeros: a coupling that ends in it begins as the identity."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


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
        return self.last(functional.relu(x))


class _DenseLayer(nn.Module):
    """ReLU, 1x1, ReLU, 3x3 with a gate for every output."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, growth, 1)
        self.conv = nn.Conv2d(growth, 2 * growth, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.reduce(functional.relu(x)))
        return functional.glu(self.conv(hidden), 1)


class UniformDequantiser(nn.Module):
    """u uniform: ln q = 0."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (u, ln q(u) float (B,)) of whole values 0 to 255, float (B, C, H, W)."""
        return torch.rand_like(pixels), pixels.new_zeros(len(pixels))


class VariationalDequantiser(nn.Module):
    """u = sigmoid(a), a normal with mean and deviation from a small network of the image."""

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
    """Return ln N(values; 0, I) of each image, float (B,)."""
    constant = 0.5 * math.log(2.0 * math.pi)
    return -(0.5 * values**2 + constant).flatten(1).sum(1)
