# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
NFlowJS: divergence of the class probabilities from the uniform distribution (Grcic et al.).

The segmenter is trained on with patches from a normalising flow pasted into its pictures, on which
it has to be undecided. The score is -JSD(U, softmax(logits / T)): no further module is served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from ood_perception.errors import ConfigError

from ...augment.pasting import OUTLIER
from ...calibration.curve import MonotoneTable, TableModule
from ...data.images import IGNORED
from ...head_module import HeadModule
from ...nets.segmenter import Segmenter
from .config import NflowjsConfig


def js_to_uniform(logits: torch.Tensor) -> torch.Tensor:
    """
    Return JSD(U, P) of P = softmax(logits), nats, float (...) of float (..., K).

    JSD = (KL(U || M) + KL(P || M)) / 2 with M = (U + P) / 2: 0 for equal logits, js_bound(K) for
    one certain class. With d = (p - u) / (p + u) each class adds m f(d) / 2 >= 0, where f(d) =
    (1 + d) ln(1 + d) + (1 - d) ln(1 - d). Near uniform, where negatives are to go, the two terms
    cancel: in float32 a small JSD lost its order and differed between engines. There the
    series of f is taken.
    """
    log_p = functional.log_softmax(logits, -1)
    p, u = log_p.exp(), 1.0 / logits.shape[-1]
    m = 0.5 * (p + u)
    d = 0.5 * (p - u) / m
    log_m, square = torch.log(m), d * d
    exact = p * (log_p - log_m) + u * (math.log(u) - log_m)
    # f(d) = sum over n of d^(2 n) / (n (2 n - 1)); the next term is below 1e-7 of the first
    series = 1 + square * (1 / 6 + square * (1 / 15 + square * (1 / 28 + square / 45)))
    return 0.5 * torch.where(d.abs() < 0.3, m * square * series, exact).sum(-1)


def js_bound(classes: int) -> float:
    """Return the JSD between the uniform distribution over K classes and a certain one, nats."""
    k = classes
    certain = math.log(2 * k / (k + 1))
    uniform = math.log(2 / (k + 1)) / k + (k - 1) / k * math.log(2)
    return 0.5 * (certain + uniform)


def kl_from_uniform(logits: torch.Tensor) -> torch.Tensor:
    """Return KL(U || P) of P = softmax(logits), nats, float (...) of float (..., K)."""
    return -math.log(logits.shape[-1]) - functional.log_softmax(logits, -1).mean(-1)


def kl_to_uniform(logits: torch.Tensor) -> torch.Tensor:
    """Return KL(P || U) = ln K - entropy of P = softmax(logits), nats."""
    log_p = functional.log_softmax(logits, -1)
    return math.log(logits.shape[-1]) + (log_p.exp() * log_p).sum(-1)


def log_max_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return ln of the largest probability, which ranks as the probability does."""
    return functional.log_softmax(logits, -1).amax(-1)


Divergence = Callable[[torch.Tensor], torch.Tensor]
DIVERGENCES: dict[str, Divergence] = {
    'js': js_to_uniform,
    'kl': kl_from_uniform,
    'reverse_kl': kl_to_uniform,
}
SCORES: dict[str, Divergence] = {**DIVERGENCES, 'max_softmax': log_max_softmax}


def anomaly_score(logits: torch.Tensor, score: str, temperature: float) -> torch.Tensor:
    """Return the score, higher = stranger, float (...) of float (..., K): minus the divergence."""
    return -SCORES[score](logits / temperature)


def nflowjs_loss(
    logits: torch.Tensor, truth: torch.Tensor, divergence: str, weight: float
) -> torch.Tensor:
    """
    Return mean CE over known pixels + weight * mean divergence over pasted ones (equation 4).

    logits: float (N, K). truth: int64 (N,), class ids, OUTLIER on pasted pixels, or IGNORED. A
    term without pixels is 0.
    """
    pasted = truth == OUTLIER
    known = (truth != IGNORED) & ~pasted
    total = functional.cross_entropy(logits[known], truth[known], reduction='sum')
    loss = total / known.sum().clamp(min=1)
    negative = DIVERGENCES[divergence](logits[pasted]).sum() / pasted.sum().clamp(min=1)
    return loss + weight * negative


class NflowjsHead(HeadModule):
    """
    The segmenter as decoder stage, the divergence on top.

    table: the held-out table of the one score, None before calibration. The class choice is made
    by the table of the set, after the graph.
    """

    head_inputs: tuple[str, ...] = ('logits',)

    def __init__(
        self,
        segmenter: Segmenter,
        config: NflowjsConfig,
        classes: Sequence[str],
        table: MonotoneTable | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layers = 'nflowjs', segmenter.layers
        self.compiled_classes = tuple(classes)
        self.upsampling = segmenter.upsampling
        self.decoder = segmenter
        self.kind, self.temperature = config.score, config.temperature
        self.table = TableModule(table) if table is not None else None
        self.requires_grad_(False).eval()

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the raw score (B, gh*f, gw*f) of the segmenter's logits."""
        return anomaly_score(logits, self.kind, self.temperature)

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, 1, gh*f, gw*f), labels), see HeadModule."""
        assert self.decoder is not None
        logits = self.decoder(*(layer.float() for layer in tokens))
        return self.score(logits).unsqueeze(1), logits.argmax(-1).to(torch.uint8)

    def top(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels) of logits and in_distribution (not read)."""
        logits = inputs[0].float()
        if self.table is None:
            raise ConfigError('the model has no held-out table: run calibrate')
        return self.table(self.score(logits)), logits.argmax(-1).to(torch.uint8)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see HeadModule."""
        *tokens, in_distribution = inputs
        assert self.decoder is not None
        logits = self.decoder(*(layer.float() for layer in tokens))
        surprisal, labels = self.top(logits, in_distribution)
        return surprisal, labels
