# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
UEM: an outlier-supervised likelihood ratio on the frozen backbone (Nayal et al.).

A small projection of the last tokens feeds a two-class head (generic inlier, outlier), linear
("discriminative") or a Gaussian mixture ("generative"). The score is
LLR = U_1 - U_0 - max_k F_k with F the raw class scores of the frozen segmenter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError

from ...calibration.curve import MonotoneTable, TableModule
from ...head_module import HeadModule
from ...nets.gmm import CONTRAST_WEIGHT, GmmHead, GmmSettings
from ...nets.segmenter import Segmenter
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
        scores: torch.Tensor = self.head(self.projection(tokens))
        return scores


def log_likelihood_ratio(
    outlier: torch.Tensor, inlier: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """
    Return LLR = U_1 - U_0 - max_k F_k, higher = stranger.

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


class UemHead(HeadModule):
    """
    Segmenter and UEM as one head: decoder stage (closed-set logits), then the score.

    table: the held-out table of the one score, None before calibration. The class choice is made
    by the table of the set, after the graph.
    """

    head_inputs: tuple[str, ...]

    def __init__(
        self,
        segmenter: Segmenter,
        module: Uem,
        classes: Sequence[str],
        table: MonotoneTable | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layers = 'uem', segmenter.layers
        self.compiled_classes = tuple(classes)
        self.upsampling = segmenter.upsampling
        self.decoder, self.module = segmenter, module
        self.head_inputs = ('logits', segmenter.layers[-1])
        self.table = TableModule(table) if table is not None else None
        self.requires_grad_(False).eval()

    def score(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return the raw score (B, gh*f, gw*f) of the segmenter's logits and the last tokens."""
        known = logits.amax(-1)
        if self.module.config.score == 'id':
            return -known
        fine = functional.interpolate(
            self.module(last.float()).permute(0, 3, 1, 2),
            [last.shape[1] * self.upsampling, last.shape[2] * self.upsampling],
            mode='bilinear',
            align_corners=False,
        )
        if self.module.config.score == 'ood':
            return fine[:, 1] - fine[:, 0]
        return log_likelihood_ratio(fine[:, 1], fine[:, 0], known)

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, 1, gh*f, gw*f), labels), see HeadModule."""
        logits = self.decoder(*(layer.float() for layer in tokens))
        return self.score(logits, tokens[-1]).unsqueeze(1), logits.argmax(-1).to(torch.uint8)

    def top(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels) of logits, last tokens and in_distribution (not read)."""
        logits, last = inputs[0].float(), inputs[1]
        if self.table is None:
            raise ConfigError('the model has no held-out table: run calibrate')
        return self.table(self.score(logits, last)), logits.argmax(-1).to(torch.uint8)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see HeadModule."""
        *tokens, in_distribution = inputs
        logits = self.decoder(*(layer.float() for layer in tokens))
        surprisal, labels = self.top(logits, tokens[-1], in_distribution)
        return surprisal, labels


def save_uem(path: Path, module: Uem) -> None:
    """Write a module as safetensors; its configuration is in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    values = {'dim': module.dim, 'config': asdict(module.config)}
    save_file(tensors, path, metadata={'uem': json.dumps(values)})


def load_uem(path: Path) -> Uem:
    """Read what save_uem wrote; DataError where it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            values = json.loads((stream.metadata() or {})['uem'])
        config = {**values['config'], 'gmm': GmmSettings(**values['config']['gmm'])}
        module = Uem(values['dim'], UemConfig(**config))
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise DataError(f'{path} is no UEM of this trainer: {error}') from error
    return module.requires_grad_(False).eval()
