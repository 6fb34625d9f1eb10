# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What single baselines learn from the training pictures: as arrays, and as modules again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from ood_perception.errors import DataError
from ood_perception.image.geometry import labels_to_grid

from ...features import FeatureSet, tokens_of
from ...nets.patches import PatchSettings, gather_tokens, select_patches
from .config import BaselineConfig
from .features import GmmDensity, GmmFit, Mahalanobis, MahalanobisFit, fit_gmm, fit_mahalanobis
from .model import (
    GMM,
    MAHALANOBIS,
    ODIN,
    STANDARDISED,
    LogitScore,
    ScaledSoftmax,
    StandardisedMaxLogit,
)

Arrays = Mapping[str, npt.NDArray[Any]]


@torch.inference_mode()
def logit_statistics(
    features: FeatureSet, logits: nn.Module, places: Sequence[int], progress: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """
    Return mean and deviation, float64 (P,), of the largest logit by the class that has it.

    Over the labelled pixels of the output grid; places: the classes that compete. A class that
    never wins takes the values of all pixels.
    """
    count, total, squares = (np.zeros(len(places)) for _ in range(3))
    pictures = range(len(features.names))
    for i in tqdm(pictures, desc='largest logits', unit='picture', disable=not progress):
        tokens = tokens_of(features, logits.layers, [i])  # type: ignore[arg-type]
        found = logits(*tokens)[0][..., list(places)].max(-1)
        best, winner = found.values.double().numpy(), found.indices.numpy()
        known = labels_to_grid(np.asarray(features.labels[i]), best.shape) != 255
        for sums, power in ((count, 0), (total, 1), (squares, 2)):
            sums += np.bincount(winner[known], best[known] ** power, len(places))
    if not count.sum():
        raise DataError('no training pixel has a label: nothing to standardise by')
    pooled = [sums.sum() / count.sum() for sums in (total, squares)]
    seen = count > 1
    mean = np.where(seen, total / np.maximum(count, 1), pooled[0])
    square = np.where(seen, squares / np.maximum(count, 1), pooled[1])
    return {'mean': mean, 'deviation': np.sqrt(np.maximum(square - mean**2, 1e-12))}


def fit_statistics(
    score: str,
    features: FeatureSet,
    logits: nn.Module,
    names: Sequence[str],
    chosen: Sequence[str],
    config: BaselineConfig,
    patches: PatchSettings,
    progress: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """
    Fit what a score needs on training pictures; nothing for scores of the logits alone.

    names: classes by label id. chosen: the classes whose score is taken. patches: which patches
    carry their class's label; their last tokens are the features.
    """
    places = [list(names).index(name) for name in chosen]
    if score == STANDARDISED:
        return logit_statistics(features, logits, places, progress)
    if score not in (MAHALANOBIS, GMM):
        return {}
    last = logits.layers[-1]  # type: ignore[index]
    tokens = gather_tokens(features, last, select_patches(features, names, patches))
    groups = [tokens[place].tokens for place in places if len(tokens[place])]
    if score == MAHALANOBIS:
        return asdict(fit_mahalanobis(groups, config.shrinkage))
    return asdict(fit_gmm(np.concatenate(groups), config))


def score_module(
    score: str,
    arrays: Arrays,
    places: Sequence[int],
    config: BaselineConfig,
    factor: int,
    half: bool,
) -> nn.Module:
    """Return the module of a score with what fit_statistics gave ('distance' has its own)."""
    if score == STANDARDISED:
        mean, deviation = (torch.from_numpy(arrays[name]) for name in ('mean', 'deviation'))
        return StandardisedMaxLogit(mean, deviation, places)
    if score == ODIN:
        return ScaledSoftmax(config.temperature, places)
    if score == MAHALANOBIS:
        return Mahalanobis(MahalanobisFit(**arrays), factor, half)
    if score == GMM:
        return GmmDensity(GmmFit(**arrays), factor, half)
    return LogitScore(score, places)
