# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Models of a given size made of random numbers: what the time depends on, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ood_perception.errors import ConfigError

from .architectures import Architecture
from .backbones import Backbone, build
from .classifier import Classifier
from .density import Gaussian
from .heads.pixood import PixOODModel
from .heads.tables import MonotoneTable
from .heads.upsampling import SquaredDistances, naive_squared_distances

HIDDEN = 512  # of the classifier, as the shipped configuration trains it
_WIDTHS = {'s': (384, 12), 'b': (768, 12), 'l': (1024, 24)}
_NAME = re.compile(r'dinov2(-reg)?-([sbl])(\d+)')


def named_backbone(name: str) -> Backbone:
    """Return dinov2-s14, dinov2-reg-b14, ... with random weights; ConfigError for another name."""
    match = _NAME.fullmatch(name)
    if not match:
        raise ConfigError(f'backbone {name!r}: expected a name such as dinov2-s14, dinov2-reg-b14')
    dim, depth = _WIDTHS[match[2]]
    registers = 4 if match[1] else 0
    patch = int(match[3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(Architecture('dinov2', dim, depth, patch, 4 * dim, registers, 37)).eval()


class Distances(nn.Module):
    """Distances to the banks' nearest etalons, as one output (B, classes, gh*f, gw*f)."""

    def __init__(self, banks: list[torch.Tensor], factor: int, form: str) -> None:
        """form: 'fast' (served) or 'naive' (features are upsampled, as published)."""
        super().__init__()
        self.banks = nn.ParameterList([nn.Parameter(bank, requires_grad=False) for bank in banks])
        self.fast = SquaredDistances(banks, factor) if form == 'fast' else None
        self.factor = factor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, gh, gw, D) to squared distances."""
        if self.fast is not None:
            return torch.stack(self.fast(tokens), 1)
        return torch.stack(naive_squared_distances(tokens, list(self.banks), self.factor), 1)


def random_banks(counts: Sequence[int], dim: int) -> list[torch.Tensor]:
    """Return one bank (K, D) per count."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, dim, generator=generator) for count in counts]


def random_pixood(counts: Sequence[int], dim: int, layers: Sequence[str]) -> PixOODModel:
    """Return a fitted PixOOD model of so many etalons per class, with a two-layer classifier."""
    rng = np.random.default_rng(0)
    names = tuple(f'class_{index}' for index in range(len(counts)))
    covariance = np.array([[0.5, 0.01], [0.01, 0.0004]])

    def table() -> MonotoneTable:
        knots = 0.01 + np.cumsum(rng.uniform(0.01, 0.1, 256))
        return MonotoneTable(-3.0, 0.1, knots, low_slope=0.02, high_slope=0.05)

    return PixOODModel(
        classes=names,
        layers=tuple(layers),
        etalons={
            name: bank.numpy() for name, bank in zip(names, random_banks(counts, dim), strict=True)
        },
        classifier=Classifier(len(layers) * dim, len(names), layers, 'mlp', HIDDEN),
        densities={name: Gaussian(np.array([0.3, 0.15]), covariance) for name in names},
        ood_std=np.array([1.5, 0.3]),
        paper_tables={},
        held_out_tables={name: table() for name in names},
    )
