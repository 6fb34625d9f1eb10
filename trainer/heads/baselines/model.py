# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classical scores of one closed-set network, as heads to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ...calibration.curve import MonotoneTable
from ..calibrated import OneScoreHead
from ..pixood.model import PixOODHead

Score = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def max_logit(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return minus the largest logit of the chosen classes (Hendrycks et al., 2022)."""
    return -logits[..., places].amax(-1)


def max_softmax(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """
    Return -ln p of the likeliest chosen class (Hendrycks and Gimpel, 2017).

    It ranks as 1 - p does, and never saturates: where p is 1 - 1e-6 and above, the difference of
    logsumexp and logit is rounding, 7e-4 of the calibrated score apart between runtimes. So the
    exponentials of the other classes are summed, and a small ln(1 + x) is taken by its series.
    """
    largest, winner = logits.max(-1, keepdim=True)
    others = torch.arange(logits.shape[-1], device=logits.device) != winner
    excess = (torch.exp(logits - largest) * others).sum(-1)
    series = excess * (1 - excess * (1 / 2 - excess * (1 / 3 - excess * (1 / 4 - excess / 5))))
    logarithm = torch.where(excess < 0.01, series, torch.log(1 + excess))
    return largest[..., 0] - logits[..., places].amax(-1) + logarithm


def energy(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return minus the log-sum-exp of all logits (Liu et al., 2020); no class is chosen."""
    return -torch.logsumexp(logits, -1)


def entropy(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return the entropy of the softmax over all classes, in nats; no class is chosen."""
    logs = torch.log_softmax(logits, -1)
    return -(logs.exp() * logs).sum(-1)


LOGIT_SCORES: dict[str, Score] = {
    'max_logit': max_logit,
    'max_softmax': max_softmax,
    'energy': energy,
    'entropy': entropy,
}
STANDARDISED, ODIN = 'standardised_max_logit', 'odin'
MAHALANOBIS, GMM, DISTANCE = 'mahalanobis', 'gmm', 'distance'
SCORES = (*LOGIT_SCORES, STANDARDISED, ODIN, MAHALANOBIS, GMM, DISTANCE)


class LogitScore(nn.Module):
    """One of LOGIT_SCORES, of logits (B, H, W, C); the features are not read."""

    def __init__(self, score: str, places: Sequence[int]) -> None:
        super().__init__()
        self.score, self.places = score, list(places)

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = stranger."""
        return LOGIT_SCORES[self.score](logits, self.places)


class ScaledSoftmax(nn.Module):
    """
    ODIN's softmax at a temperature (Liang et al., 2018), without its step on the picture.

    T (-ln p - ln C) instead of -ln p: the same ranks, as differences of logits. At T = 1000 the
    terms are thousandths beside 1, so exp(y) - 1 is taken by tanh and a small ln(1 + x) by its
    series: plain exp and log left a difference of 5e-4 in the score between runtimes.
    """

    def __init__(self, temperature: float, places: Sequence[int]) -> None:
        super().__init__()
        self.temperature, self.places = temperature, list(places)

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = stranger."""
        best = logits[..., self.places].amax(-1)
        largest = logits.amax(-1, keepdim=True)
        half = torch.tanh((logits - largest) / (2 * self.temperature))
        excess = (2 * half / (1 - half)).mean(-1)  # mean of exp - 1, in (-1, 0]
        series = excess * (1 - excess * (1 / 2 - excess * (1 / 3 - excess / 4)))
        logarithm = torch.where(excess > -0.01, series, torch.log(1 + excess))
        return largest[..., 0] - best + self.temperature * logarithm


class StandardisedMaxLogit(nn.Module):
    """
    Minus the largest logit, standardised by the class that has it (Jung et al., 2021).

    mean, deviation: float (P,) of the largest logit over training pixels of each predicted class
    among `places`. The paper's smoothing of borders is left out.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor, places: Sequence[int]) -> None:
        super().__init__()
        self.places = list(places)
        self.register_buffer('mean', mean.float())
        self.register_buffer('deviation', deviation.float())

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = stranger."""
        best, winner = logits[..., self.places].max(-1)
        return (self.mean[winner] - best) / self.deviation[winner]


class EtalonDistance(nn.Module):
    """The distance to the nearest etalon of any of a PixOOD head's classes, in its last layer."""

    def __init__(self, source: PixOODHead) -> None:
        super().__init__()
        self.distances = source.distances

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = stranger."""
        return torch.sqrt(torch.stack(self.distances(last)).amin(0))


class BaselineHead(OneScoreHead):
    """
    One score of a closed-set network's logits or features, calibrated like every other head.

    logits: module from tokens of its `layers` to logits (B, H, W, C). A segmenter is a stage of
        its own (decoder).
    score: module from (logits, last tokens) to (B, H, W). name: of the score.
    classes: those that the in_distribution input names.
    """

    def __init__(
        self,
        name: str,
        logits: nn.Module,
        score: nn.Module,
        classes: Sequence[str],
        upsampling: int,
        decoder: bool = False,
        table: MonotoneTable | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layers = name, tuple(logits.layers)  # type: ignore[arg-type]
        self.compiled_classes, self.upsampling = tuple(classes), upsampling
        self.logits = logits
        if decoder:
            self.decoder = logits
            self.head_inputs = ('logits', self.layers[-1])
        self.score = score
        self.finish(table)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of the tokens, or of a decoder's logits and the last tokens."""
        logits = self.logits(*inputs) if self.decoder is None else inputs[0]
        return self.score(logits, inputs[-1]), logits.argmax(3).to(torch.uint8)
