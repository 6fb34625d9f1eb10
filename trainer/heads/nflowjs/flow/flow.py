# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A multi-scale flow of images: likelihood of given ones, differentiable samples of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError

from .layers import LEVELS, Transform, standard_normal, zero_conv

STRIDE = 8
COLOURS = 3


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


@dataclass(frozen=True)
class Encoding:
    """
    An image in the flow's own terms.

    latents: the half that leaves after each scale, last what leaves the flow, float (B, C, H, W).
    log_det: float (B,), log-determinant of the map from (image, noise) to the latents.
    noise: drawn between units.
    """

    latents: list[torch.Tensor]
    log_det: torch.Tensor
    noise: list[torch.Tensor]


class Flow(nn.Module):
    """
    Three scales, each behind a squeeze (2x2 pixels to channels); half leaves between two.

    What leaves early is standard normal; the last latents have a mean and a deviation of their
    own for every channel, the same at all places: the size of the latent map is free.
    """

    def __init__(self, scales: Sequence[Scale], dequantiser: nn.Module) -> None:
        super().__init__()
        if 2 ** len(scales) != STRIDE:
            raise ValueError(f'{len(scales)} scales do not make a stride of {STRIDE}')
        self.scales, self.dequantiser = nn.ModuleList(scales), dequantiser
        last = scales[-1].out_channels
        self.mean = nn.Parameter(torch.zeros(1, last, 1, 1))
        self.log_sigma = nn.Parameter(torch.zeros(1, last, 1, 1))

    def encode(self, images: torch.Tensor, noise: Iterable[torch.Tensor] = ()) -> Encoding:
        """
        Return the latents of continuous images, float (B, 3, H, W) in [0, 1].

        noise: of every crossing, in the place of drawn noise.
        """
        given = list(noise)
        source = iter(given) if given else None
        x, latents, drawn = images - 0.5, [], []
        total = x.new_zeros(len(x))
        for index, scale in enumerate(self.scales):
            result = scale(functional.pixel_unshuffle(x, 2), source)
            x, total = result.output, total + result.log_det
            drawn += result.noise
            if index + 1 < len(self.scales):
                kept = kept_channels(scale.out_channels)
                latents.append(x[:, kept:])
                x = x[:, :kept]
        return Encoding([*latents, x], total, drawn)

    def decode(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the continuous images, float (B, 3, H, W), of encode's latents."""
        x = latents[-1]
        for index in reversed(range(len(self.scales))):
            if index + 1 < len(self.scales):
                x = torch.cat((x, latents[index]), 1)
            x = functional.pixel_shuffle(self.scales[index].inverse(x), 2)
        return x + 0.5

    def log_likelihood(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        Return ln P of images of whole grey values, nats, float (B,); a lower bound.

        pixels: float (B, 3, H, W), values 0 to 255, H and W multiples of STRIDE.
        """
        added, log_q = self.dequantiser(pixels)
        encoding = self.encode((pixels + added) / LEVELS)
        *early, last = encoding.latents
        density = standard_normal((last - self.mean) * (-self.log_sigma).exp())
        density = density - last.shape[2] * last.shape[3] * self.log_sigma.sum()
        for latent in early:
            density = density + standard_normal(latent)
        for noise in encoding.noise:
            density = density - standard_normal(noise)
        values = pixels[0].numel()
        return density + encoding.log_det - values * math.log(LEVELS) - log_q

    def bits_per_dimension(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return -log2 P per value of each image, float (B,), see log_likelihood."""
        return -self.log_likelihood(pixels) / (math.log(2.0) * pixels[0].numel())

    def sample(self, count: int, height: int, width: int) -> torch.Tensor:
        """
        Return drawn images, float (count, 3, height, width) in [0, 255].

        Differentiable in the parameters where the values are not clipped. Randomness is torch's.
        Raises ConfigError for sides that are no multiples of STRIDE.
        """
        if height % STRIDE or width % STRIDE or min(height, width) < STRIDE:
            raise ConfigError(f'a flow makes multiples of {STRIDE} pixels, not {height} x {width}')
        latents = []
        for index, scale in enumerate(self.scales):
            side = 2 ** (index + 1)
            channels = scale.out_channels
            if index + 1 < len(self.scales):
                channels -= kept_channels(channels)
            shape = (count, channels, height // side, width // side)
            latents.append(self.mean.new_empty(shape).normal_())
        latents[-1] = self.mean + self.log_sigma.exp() * latents[-1]
        # a grey value k stands for [k, k + 1)
        return (self.decode(latents) * LEVELS - 0.5).clamp(0.0, LEVELS - 1.0)


def kept_channels(channels: int) -> int:
    """Return how many channels stay in the flow between two scales: the first half."""
    return (channels + 1) // 2
