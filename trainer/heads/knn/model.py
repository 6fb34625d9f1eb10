# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
cDNP: dense nearest neighbours, combined with the classifier's log-sum-exp (Galesso et al.).

A patch is anomalous when the features of the known images that lie nearest to it are far away.
Features are the attention keys of the last block; the score is the plain sum of the mean distance
to the k nearest references and of 1 - logsumexp of the logits, each brought to the range that it
has on the reference images.
The search is exact: matrix products, piece by piece, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError

from ...calibration.monotone_curve import CalibrationCurve
from ...nets.patch_classifier import Classifier
from ..calibrated import OneScoreHead
from ..upsampling import PatchLogits, frozen, half_rounded, upsample

PIECE = 16_384  # references at a time: with a frame's 1296 tokens, 85 MB of products


def smallest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k smallest of the last axis (..., k), ascending."""
    return torch.topk(values, k, dim=-1, largest=False, sorted=True).values


def nearest_squared(
    queries: torch.Tensor, references: npt.NDArray[np.floating], k: int
) -> torch.Tensor:
    """
    Return the k smallest squared distances of each query, float32 (Q, k) >= 0, ascending.

    queries: float (Q, D). references: float (N, D), read piece by piece: memory is Q x PIECE
    products, whatever N. DataError for fewer than k references.
    """
    if len(references) < k:
        raise DataError(f'{len(references)} references have no {k} nearest: give more')
    queries = queries.float()
    found = queries.new_empty((len(queries), 0))
    for start in range(0, len(references), PIECE):
        piece = torch.as_tensor(np.asarray(references[start : start + PIECE])).float()
        if start == 0:  # distances do not change, but differences stay small
            center = piece.mean(0)
            queries = queries - center
        piece = piece - center
        products = torch.addmm((piece * piece).sum(1), queries, piece.T, alpha=-2)
        found = torch.cat([found, smallest(products, min(k, len(piece)))], 1)
        found = smallest(found, min(k, found.shape[1]))
    return torch.relu(found + (queries**2).sum(1, keepdim=True))


def head_slices(width: int, heads: int) -> list[slice]:
    """Return the columns of each attention head; ConfigError where they do not fit."""
    if heads < 1 or width % heads:
        raise ConfigError(f'{width} columns cannot be split into {heads} attention heads')
    size = width // heads
    return [slice(h * size, (h + 1) * size) for h in range(heads)]


def mean_distances(
    queries: npt.NDArray[np.floating],
    references: npt.NDArray[np.floating],
    k: int,
    heads: int = 1,
    others: bool = False,
) -> npt.NDArray[np.float32]:
    """
    Return float32 (Q,): mean distance to the k nearest references, averaged over attention heads.

    queries: float (Q, D). references: float (N, D). heads: parts of the width that are searched
    apart, 1 = the whole. others: the queries are among the references: the nearest one, itself,
    is left out.
    """
    total = np.zeros(len(queries), np.float32)
    for columns in head_slices(queries.shape[1], heads):
        for start in range(0, len(queries), 2048):
            part = np.ascontiguousarray(queries[start : start + 2048, columns])
            squared = nearest_squared(torch.from_numpy(part), references[:, columns], k + others)
            distances = squared[:, int(others) :].sqrt().mean(1)
            total[start : start + 2048] += distances.numpy() / heads
    return total


class NearestReferences(nn.Module):
    """
    Mean distance to the k nearest references, in operators of every runtime.

    references: float (N, D). heads: see mean_distances. half: round the centred references to
    float16, so that a file may hold them so; the arithmetic is float32 all the same.
    |t - r|^2 = |t|^2 - 2 t.r + |r|^2 after the mean reference is taken off both.
    """

    center: torch.Tensor

    def __init__(
        self, references: torch.Tensor, k: int, heads: int = 1, half: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= k <= len(references):
            raise ConfigError(f'{k} nearest of {len(references)} references: choose 1 to all')
        self.k = k
        self.slices = head_slices(references.shape[1], heads)
        self.register_buffer('center', references.float().mean(0))
        centered = references.float() - self.center
        if half:
            centered = half_rounded(centered)
        pieces = centered.split(PIECE)
        self.matrices = nn.ParameterList(
            [frozen(-2 * piece[:, s].T) for s in self.slices for piece in pieces]
        )
        self.offsets = nn.ParameterList(
            [frozen((piece[:, s] ** 2).sum(1)) for s in self.slices for piece in pieces]
        )
        self.effective = centered + self.center

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (B, gh, gw) >= 0 from tokens (B, gh, gw, D)."""
        rows, columns, width = (int(length) for length in tokens.shape[1:])
        flat = (tokens - self.center).reshape(-1, rows * columns, width)
        count = len(self.matrices) // len(self.slices)
        total = None
        for head, part in enumerate(self.slices):
            own = flat[..., part] if len(self.slices) > 1 else flat
            found = [
                smallest(own @ matrix + offset, min(self.k, len(offset)))
                for matrix, offset in list(zip(self.matrices, self.offsets, strict=True))[
                    head * count : (head + 1) * count
                ]
            ]
            least = found[0] if count == 1 else smallest(torch.cat(found, 2), self.k)
            norms = (own * own).sum(2, keepdim=True)
            mean = torch.sqrt(torch.relu(least + norms)).mean(2)
            total = mean if total is None else total + mean
        return (total / len(self.slices)).reshape(-1, rows, columns)


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
        unknown = [name for name in classes if name not in model.classes]
        if unknown:
            raise ConfigError(f'classes {unknown}: known are {", ".join(model.classes)}')
        own = tuple(model.classifier.layers)
        layers = own if model.feature in own else (*own, model.feature)
        super().__init__('knn', layers, tuple(classes) or model.classes, upsampling)
        self.place, self.classifier_inputs = self.layers.index(model.feature), len(own)
        self.score = score
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
