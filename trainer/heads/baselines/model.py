# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classical scores of one closed-set network, as heads to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import ConfigError

from ...backbones.base import layer_name
from ...calibration.monotone_curve import CalibrationCurve
from ..calibrated import OneScoreHead
from ..pixood.model import PixOODHead
from ..upsampling import half_rounded, upsample
from .config import BaselineConfig

Arrays = Mapping[str, npt.NDArray[Any]]
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
        """Return float (B, H, W), higher = more anomalous."""
        return LOGIT_SCORES[self.score](logits, self.places)


class ScaledSoftmax(nn.Module):
    """
    ODIN's softmax at a temperature (Liang et al., 2018), without its step on the image.

    T (-ln p - ln C) instead of -ln p: the same ranks, as differences of logits. At T = 1000 the
    terms are thousandths beside 1, so exp(y) - 1 is taken by tanh and a small ln(1 + x) by its
    series: plain exp and log left a difference of 5e-4 in the score between runtimes.
    """

    def __init__(self, temperature: float, places: Sequence[int]) -> None:
        super().__init__()
        self.temperature, self.places = temperature, list(places)

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = more anomalous."""
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
        """Return float (B, H, W), higher = more anomalous."""
        best, winner = logits[..., self.places].max(-1)
        return (self.mean[winner] - best) / self.deviation[winner]


class EtalonDistance(nn.Module):
    """The distance to the nearest etalon of any of a PixOOD head's classes, in its last layer."""

    def __init__(self, source: PixOODHead) -> None:
        super().__init__()
        self.distances = source.distances

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, H, W), higher = more anomalous."""
        return torch.sqrt(torch.stack(self.distances(last)).amin(0))


class Mahalanobis(nn.Module):
    """
    Squared Mahalanobis distance of the patches' features to the nearest class mean, upsampled.

    fit: of training.fit_mahalanobis. rank: how many principal directions count, 0 = all; the
    graph holds the whole whitening, from which adaptation reads the covariance. Differences are
    squared, not expanded: they are small beside the features' length.
    """

    center: torch.Tensor
    whitening: torch.Tensor
    means: torch.Tensor

    def __init__(self, fit: Arrays, factor: int, half: bool = False, rank: int = 0) -> None:
        super().__init__()
        self.factor = factor
        whitening = torch.from_numpy(fit['whitening']).float()
        self.register_buffer('center', torch.from_numpy(fit['means'].mean(0)).float())
        self.register_buffer('whitening', half_rounded(whitening) if half else whitening)
        self.rank = min(rank, len(whitening)) or len(whitening)
        means = torch.from_numpy(fit['means']) - self.center.double()
        means = (means @ self.whitening.double())[:, : self.rank]
        self.register_buffer('means', means.float())

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, gh*f, gw*f) of tokens (B, gh, gw, D), higher = more anomalous."""
        whitened = (last - self.center) @ self.whitening
        if self.rank < len(self.center):
            whitened = whitened[..., : self.rank]
        differences = whitened.unsqueeze(3) - self.means
        squared = (differences * differences).sum(4).amin(3, keepdim=True)
        return upsample(squared, self.factor)[..., 0]


class GmmDensity(nn.Module):
    """Minus the log density of the mixture of training.fit_gmm of the features, upsampled."""

    center: torch.Tensor
    basis: torch.Tensor
    constants: torch.Tensor

    def __init__(self, fit: Arrays, factor: int, half: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.count, self.reduced = fit['means'].shape
        basis = torch.from_numpy(fit['basis'].copy()).float()
        self.register_buffer('center', torch.from_numpy(fit['center']).float())
        self.register_buffer('basis', half_rounded(basis) if half else basis)
        stacked = np.concatenate(list(fit['precisions']), 1)
        matrix = torch.from_numpy(stacked).float()
        matrix = half_rounded(matrix) if half else matrix
        used = matrix.double().numpy().reshape(self.reduced, self.count, self.reduced)
        offsets = np.einsum('kr,rks->ks', fit['means'], used)
        self.matrix = nn.Parameter(matrix, requires_grad=False)
        self.register_buffer('offsets', torch.from_numpy(offsets.reshape(-1)).float())
        diagonals = np.diagonal(fit['precisions'], axis1=1, axis2=2)
        constants = np.log(diagonals).sum(1) - 0.5 * self.reduced * math.log(2 * math.pi)
        self.register_buffer('constants', torch.from_numpy(constants + fit['log_weights']).float())

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, gh*f, gw*f) of tokens (B, gh, gw, D), higher = more anomalous."""
        reduced = (last - self.center) @ self.basis
        whitened = reduced @ self.matrix - self.offsets
        rows, columns = int(last.shape[1]), int(last.shape[2])
        parts = whitened.reshape(-1, rows, columns, self.count, self.reduced)
        logs = self.constants - 0.5 * (parts * parts).sum(4)
        score = -torch.logsumexp(logs, 3)
        return upsample(score.unsqueeze(3), self.factor)[..., 0]


class BaselineHead(OneScoreHead):
    """
    One score of a closed-set network's logits or features, calibrated like every other head.

    logits: module from tokens of its `layers` to logits (B, H, W, C). A segmenter is a stage of
        its own (decoder).
    score: module from (logits, tokens) to (B, H, W). read: names of the layers whose tokens it
        takes, side by side. name: of the score.
    classes: those that the in_distribution input names.
    """

    def __init__(
        self,
        name: str,
        logits: nn.Module,
        score: nn.Module,
        read: Sequence[str],
        classes: Sequence[str],
        upsampling: int,
        decoder: bool = False,
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__(name, logits.layers, classes, upsampling)  # type: ignore[arg-type]
        self.read, self.logits = tuple(read), logits
        if decoder:
            self.decoder = logits
            self.head_inputs = ('logits', *self.read)
        self.score = score
        self.finish(curve)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of the tokens, or of a decoder's logits and the tokens read."""
        whole = self.decoder is None
        logits = self.logits(*inputs) if whole else inputs[0]
        given = dict(zip(self.layers if whole else self.head_inputs, inputs, strict=True))
        tokens = [given[name] for name in self.read]
        features = tokens[0] if len(tokens) == 1 else torch.cat(tokens, 3)
        return self.score(logits, features), logits.argmax(3).to(torch.uint8)


def read_layers(available: Sequence[str], config: BaselineConfig) -> tuple[str, ...]:
    """Return the names of the layers that a score reads; ConfigError for one not at hand."""
    names = tuple(map(layer_name, config.layers)) or (available[-1],)
    wrong = [name for name in names if name not in available]
    if wrong:
        raise ConfigError(
            f'baseline.layers {list(config.layers)}: the network reads {", ".join(available)}; '
            'name these blocks in backbone.layers, too'
        )
    return names
