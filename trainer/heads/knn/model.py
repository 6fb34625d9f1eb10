# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
cDNP: dense nearest neighbours, combined with the classifier's log-sum-exp (Galesso et al.).

A patch is anomalous when the features of the known images that lie nearest to it are far away.
Features are the attention keys of the last block; the score is the plain sum of the mean distance
to the k nearest references and of 1 - logsumexp of the logits, each brought to the range that it
has on the reference images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ood_perception.errors import ConfigError

from ...calibration.monotone_curve import CalibrationCurve
from ...nets.patch_classifier import Classifier
from ..calibrated import OneScoreHead
from ..upsampling import PatchLogits, upsample
from .search import NearestReferences


@dataclass(frozen=True, eq=False)
class KnnModel:
    """
    What cDNP keeps of the known images.

    classes: of the logits. feature: name of the searched layer. heads: parts of its width that
        are searched apart, 1 = the whole.
    references: float16 (N, D). k: neighbours.
    classifier: patch logits (B, gh, gw, C); classifier.layers are its inputs.
    low, high: range of 1 - logsumexp on the reference images. farthest: largest mean distance of
        a reference feature to its k nearest others. upsample: of the distance map.
    report: JSON values.
    """

    classes: tuple[str, ...]
    feature: str
    heads: int
    references: npt.NDArray[np.float16]
    k: int
    classifier: Classifier
    low: float
    high: float
    farthest: float
    upsample: str = 'bilinear'
    report: dict[str, Any] = field(default_factory=dict)


def parametric_score(logits: torch.Tensor) -> torch.Tensor:
    """Return 1 - log-sum-exp over the last axis; higher = more anomalous."""
    return 1.0 - torch.logsumexp(logits, -1)


def upsampled_distance(distance: torch.Tensor, factor: int, mode: str) -> torch.Tensor:
    """Return (B, gh*f, gw*f) of a map (B, gh, gw)."""
    if mode == 'bilinear' or factor == 1:
        return upsample(distance.unsqueeze(3), factor)[..., 0]
    size = [int(length) * factor for length in distance.shape[1:]]
    return functional.interpolate(distance.unsqueeze(1), size=size, mode='nearest')[:, 0]


class KnnHead(OneScoreHead):
    """
    Nearest references and classifier as one graph.

    classes: those that the in_distribution input names (default: all). score: see KnnConfig.
    logits, half_weights: as for PixOODHead.
    """

    def __init__(
        self,
        model: KnnModel,
        classes: Sequence[str] = (),
        upsampling: int = 7,
        score: str = 'combined',
        logits: str = 'patch',
        half_weights: bool = False,
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__()
        unknown = [name for name in classes if name not in model.classes]
        if unknown:
            raise ConfigError(f'classes {unknown}: known are {", ".join(model.classes)}')
        self.name = 'knn'
        own = tuple(model.classifier.layers)
        self.layers = own if model.feature in own else (*own, model.feature)
        self.place, self.classifier_inputs = self.layers.index(model.feature), len(own)
        self.compiled_classes = tuple(classes) or model.classes
        self.known_classes = model.classes
        self.upsampling, self.score = upsampling, score
        self.mode, self.farthest = model.upsample, model.farthest
        self.low, self.range = model.low, model.high - model.low
        references = torch.from_numpy(np.asarray(model.references, np.float32))
        self.search = NearestReferences(references, model.k, model.heads, half_weights)
        self.logits = PatchLogits(model.classifier, logits, upsampling, half_weights)
        self.finish(curve)

    def upsampled_logits(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, gh*f, gw*f, C) of the tokens of all layers."""
        return self.logits(*tokens[: self.classifier_inputs])

    def distance(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return the mean distance to the k nearest references, float32 (B, gh*f, gw*f)."""
        return upsampled_distance(self.search(tokens[self.place]), self.upsampling, self.mode)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of the tokens of all layers, see OneScoreHead."""
        logits = self.upsampled_logits(*inputs)
        labels = logits.argmax(3).to(torch.uint8)
        if self.score == 'distance':
            return self.distance(*inputs), labels
        raw = (parametric_score(logits) - self.low) / self.range
        if self.score == 'combined':
            raw = raw + self.distance(*inputs) / self.farthest
        return raw, labels
