# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
UEM: an outlier-supervised likelihood ratio on the frozen backbone (Nayal et al.).

A small projection of the last tokens feeds a two-class head (generic inlier, outlier), linear
("discriminative") or a Gaussian mixture ("generative"). The score is
LLR = U_1 - U_0 - max_k F_k with F the raw class scores of the frozen segmenter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ood_perception.typed_values import build

from ...artifacts import load_network, save_network
from ...calibration.monotone_curve import CalibrationCurve
from ...nets.gmm import CONTRAST_WEIGHT, GmmHead
from ...nets.segmenter import Segmenter
from ..calibrated import OneScoreHead
from .config import UemConfig

HIDDEN = (512, 512, 256)


class Uem(nn.Module):
    """Projection and two-class head; float32 tokens (B, gh, gw, D) to U (B, gh, gw, 2)."""

    def __init__(self, dim: int, config: UemConfig) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        first, second, last = HIDDEN
        self.projection = nn.Sequential(
            *(nn.Linear(dim, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()),
            nn.Linear(second, last),
        )
        self.head: nn.Module = (
            GmmHead(last, 2, config.gmm) if config.form == 'generative' else nn.Linear(last, 2)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the raw scores U of (generic inlier, outlier)."""
        return self.head(self.projection(tokens))


def log_likelihood_ratio(
    outlier: torch.Tensor, inlier: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """
    Return LLR = U_1 - U_0 - max_k F_k, higher = more anomalous.

    outlier, inlier: U_1 and U_0, float of one shape. known: max_k F_k, the same shape.
    """
    return outlier - inlier - known


def uem_loss(
    scores: torch.Tensor, known: torch.Tensor, truth: torch.Tensor, own_weight: float
) -> torch.Tensor:
    """
    Return BCE(LLR) + alpha CE(U) over pixels.

    scores: U, float (N, 2). known: max_k F_k, float (N,). truth: int64 (N,), 1 = outlier.
    """
    ratio = log_likelihood_ratio(scores[:, 1], scores[:, 0], known)
    loss = functional.binary_cross_entropy_with_logits(ratio, truth.to(ratio.dtype))
    if own_weight:
        loss = loss + own_weight * functional.cross_entropy(scores, truth)
    return loss


def contrast_loss(
    module: Uem, projected: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor | float:
    """Return the mixture's weighted contrast loss of patch features; 0 for a linear head."""
    if not isinstance(module.head, GmmHead):
        return 0.0
    return CONTRAST_WEIGHT * module.head.training_loss(projected.flatten(0, -2), labels.flatten())


class UemHead(OneScoreHead):
    """Segmenter and UEM as one head: decoder stage (closed-set logits), then the score."""

    def __init__(
        self,
        segmenter: Segmenter,
        module: Uem,
        classes: Sequence[str],
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__('uem', segmenter.layers, classes, segmenter.upsampling)
        self.decoder, self.module = segmenter, module
        self.head_inputs = ('logits', segmenter.layers[-1])
        self.finish(curve)

    def score(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return the raw score (B, gh*f, gw*f) of the segmenter's logits and the last tokens."""
        known = logits.amax(-1)
        if self.module.config.score == 'id':
            return -known
        fine = functional.interpolate(
            self.module(last).permute(0, 3, 1, 2),
            [last.shape[1] * self.upsampling, last.shape[2] * self.upsampling],
            mode='bilinear',
            align_corners=False,
        )
        if self.module.config.score == 'ood':
            return fine[:, 1] - fine[:, 0]
        return log_likelihood_ratio(fine[:, 1], fine[:, 0], known)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of logits and last tokens, see OneScoreHead."""
        logits, last = inputs
        return self.score(logits, last), logits.argmax(-1).to(torch.uint8)


def save_uem(path: Path, module: Uem) -> None:
    """Write a module with its configuration."""
    save_network(path, module, 'uem', {'dim': module.dim, 'config': asdict(module.config)})


def load_uem(path: Path) -> Uem:
    """Read what save_uem wrote; DataError where it is something else."""
    return load_network(
        path,
        'uem',
        lambda values: Uem(values['dim'], build(UemConfig, values['config'], str(path))),
    )
