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
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError

from ..aspp import BRANCHES
from ..head_module import HeadModule
from .corocl import SAMPLES, TEMPERATURE
from .rpl_block import ResidualBlock, to_feature_grid
from .rpl_losses import ENERGY_WEIGHT, energy
from .tables import MonotoneTable, TableModule

SMOOTHING, SIGMA = 7, 1.0
"""Sides and sigma of the Gaussian over the score map, in its cells."""


@dataclass(frozen=True)
class RplConfig:
    """
    How the block is built and trained (defaults: the `cpu` preset on cached mixes).

    width: of the block's branches. dilations: in cells of the trunk's grid, () = those that reach
        as far over the picture as the paper's, see aspp.scaled_dilations.
    dissimilarity, contrast: the losses beside cross-entropy and energy. context: show whole
        everyday pictures to the contrast, context_batch of them in a step.
    energy_weight, contrast_weight, temperature, samples: see rpl_losses and corocl.
    steps, batch, learning_rate: Adam; polynomial of power 0.9, the last layer 10 times as fast.
    pixel_step: every s-th row and column of the labels. matmul: 'f32' or 'bf16' arithmetic while
        training. select_every: steps between looks at AP on the selection mixes; the best state is
        kept. online: draw fresh mixes in every step, see SegmenterConfig.
    """

    width: int = 128
    dilations: tuple[int, ...] = ()
    dissimilarity: bool = True
    contrast: bool = True
    context: bool = True
    energy_weight: float = ENERGY_WEIGHT
    contrast_weight: float = 1.0
    temperature: float = TEMPERATURE
    samples: int = SAMPLES
    steps: int = 1000
    batch: int = 4
    context_batch: int = 2
    learning_rate: float = 5e-4
    pixel_step: int = 3
    matmul: str = 'bf16'
    select_every: int = 100
    online: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        if self.matmul not in ('f32', 'bf16'):
            raise ConfigError(f'rpl matmul {self.matmul!r}: choose one of f32, bf16')
        if self.dilations and (len(self.dilations) != BRANCHES - 2 or min(self.dilations) < 1):
            raise ConfigError(
                f'rpl dilations {list(self.dilations)}: give {BRANCHES - 2} of at least 1, or none'
            )
        counts = (self.width, self.steps, self.pixel_step, self.select_every, self.context_batch)
        if min(*counts, self.samples) < 1 or self.batch < 2:
            raise ConfigError(
                'rpl width, steps, pixel_step, select_every, context_batch and samples must be '
                'at least 1, batch at least 2: its BatchNorm needs two pictures'
            )
        if self.temperature <= 0:
            raise ConfigError(f'rpl temperature {self.temperature:g}: give a value above 0')

    @property
    def warmup(self) -> int:
        """Steps of rising rate: none."""
        return 0


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


class RplHead(HeadModule):
    """
    Host and block as one head: decoder stage (feature, residual), then classifier and energy.

    The classifier is in the head's float32 graph: logits in half precision would leave the energy
    few distinct values. table: the held-out table of the one score, None before calibration.
    """

    def __init__(
        self,
        host: nn.Module,
        block: ResidualBlock,
        classes: Sequence[str],
        table: MonotoneTable | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layers = 'rpl', host.layers
        self.compiled_classes = tuple(classes)
        self.upsampling = host.upsampling
        self.decoder, self.classifier = FeatureAndResidual(host, block), host.classifier
        self.head_inputs = ('features',)
        self.smoothing = Smoothing()
        self.table = TableModule(table) if table is not None else None
        self.requires_grad_(False).eval()

    def scores_of(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (smoothed energy, labels of the frozen network) of the decoder's output."""
        feature, residual = features.float().chunk(2, -1)
        labels = self.classifier(feature).argmax(-1).to(torch.uint8)
        return self.smoothing(energy(self.classifier(feature + residual))), labels

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, 1, gh*f, gw*f), labels), see HeadModule."""
        assert self.decoder is not None
        score, labels = self.scores_of(self.decoder(*tokens))
        return score.unsqueeze(1), labels

    def top(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels) of the decoder's output and in_distribution (not read)."""
        if self.table is None:
            raise ConfigError('the model has no held-out table: run calibrate')
        score, labels = self.scores_of(inputs[0])
        return self.table(score), labels

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see HeadModule."""
        assert self.decoder is not None
        *tokens, in_distribution = inputs
        surprisal, labels = self.top(self.decoder(*tokens), in_distribution)
        return surprisal, labels
