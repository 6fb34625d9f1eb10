# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
NFlowJS: divergence of the class probabilities from the uniform distribution (Grcic et al.).

The segmenter is trained on with patches from a normalising flow pasted into its images, on which
it has to be undecided. The score is -JSD(U, softmax(logits / T)): no further module is served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from ...augment.pasting import OUTLIER
from ...calibration.monotone_curve import CalibrationCurve
from ...data.images import IGNORED
from ...nets.segmenter import Segmenter
from ..calibrated import OneScoreHead
from .config import NflowjsConfig


def js_to_uniform(logits: torch.Tensor) -> torch.Tensor:
    """
    Return JSD(U, P) of P = softmax(logits), nats, float (...) of float (..., K).

    JSD = (KL(U || M) + KL(P || M)) / 2 with M = (U + P) / 2: 0 for equal logits, most
    for one certain class. With d = (p - u) / (p + u) each class adds m f(d) / 2 >= 0, where f(d) =
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
    """Return minus the divergence, higher = more anomalous: float (...) of float (..., K)."""
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


class NflowjsHead(OneScoreHead):
    """The segmenter as decoder stage, the divergence on top."""

    head_inputs = ('logits',)

    def __init__(
        self,
        segmenter: Segmenter,
        config: NflowjsConfig,
        classes: Sequence[str],
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__('nflowjs', segmenter.layers, classes, segmenter.upsampling)
        self.decoder = segmenter
        self.kind, self.temperature = config.score, config.temperature
        self.finish(curve)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of the segmenter's logits, see OneScoreHead."""
        (logits,) = inputs
        score = anomaly_score(logits, self.kind, self.temperature)
        return score, logits.argmax(-1).to(torch.uint8)
