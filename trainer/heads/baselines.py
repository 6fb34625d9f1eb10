# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classical scores of one patch classifier, and nearest distance, as heads to compare with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ood_perception.errors import ConfigError

from .base import HeadModule
from .pixood_module import PixOODHead
from .tables import MonotoneTable, TableModule

Score = Callable[[torch.Tensor, list[int]], torch.Tensor]


def max_logit(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Return minus the largest logit of the chosen classes (Hendrycks et al., 2022)."""
    return -logits[..., places].amax(-1)


def max_softmax(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """
    Return -ln p of the likeliest chosen class (Hendrycks and Gimpel, 2017).

    It ranks as 1 - p does, and never saturates.
    """
    return torch.logsumexp(logits, -1) - logits[..., places].amax(-1)


def energy(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Return minus the log-sum-exp of all logits (Liu et al., 2020); no class is chosen."""
    return -torch.logsumexp(logits, -1)


def entropy(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Return the entropy of the softmax over all classes, in nats; no class is chosen."""
    logs = torch.log_softmax(logits, -1)
    return -(logs.exp() * logs).sum(-1)


LOGIT_SCORES: dict[str, Score] = {
    'max_logit': max_logit,
    'max_softmax': max_softmax,
    'energy': energy,
    'entropy': entropy,
}
DISTANCE = 'distance'
SCORES = (*LOGIT_SCORES, DISTANCE)


class BaselineHead(HeadModule):
    """
    One score of a PixOOD model's classifier or etalons, calibrated like every other head.

    source: with the classes whose scores are taken. score: one of SCORES; 'distance' is the
    distance to the nearest etalon of any of source's classes, in the last layer.
    table: the held-out table, None before calibration.
    """

    def __init__(self, source: PixOODHead, score: str, table: MonotoneTable | None = None) -> None:
        super().__init__()
        if score not in SCORES:
            raise ConfigError(f'head score {score!r}: choose one of {", ".join(SCORES)}')
        self.name, self.layers = score, source.layers
        self.compiled_classes, self.upsampling = source.compiled_classes, source.upsampling
        self.source, self.score = source, score
        self.table = TableModule(table) if table is not None else None
        self.requires_grad_(False).eval()

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, 1, gh*f, gw*f), labels), see HeadModule."""
        tokens = tuple(layer.float() for layer in tokens)
        logits = self.source.upsampled_logits(*tokens)
        if self.score == DISTANCE:
            raw = torch.stack(self.source.nearest(tokens[-1])).amin(0)
        else:
            raw = LOGIT_SCORES[self.score](logits, self.source.class_places)
        return raw.unsqueeze(1), logits.argmax(3).to(torch.uint8)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see HeadModule."""
        if self.table is None:
            raise ConfigError('the model has no held-out table: run calibrate')
        raw, labels = self.raw_scores(*inputs[:-1])
        return self.table(raw[:, 0]), labels
