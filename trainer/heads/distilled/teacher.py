# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Mahalanobis distances to the normal classes, as a score and as tokens: of teacher and student.

The score is the logarithm of the distance in its own deviations on normal patches, so that 0 is
the usual road and a few units are far from it, whatever the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...features import FeatureSet
from ...nets.patches import PatchSettings, gather_tokens, select_patches
from ..baselines.config import BaselineConfig
from ..baselines.training import fit_mahalanobis, source_weights

Array = npt.NDArray[np.float32]
_LEAST = 1e-3
LEAST_DISTANCE = 1e-6


@dataclass(frozen=True)
class Teacher:
    """
    A fitted teacher.

    mean, deviation: float32 (D,) of the tokens on normal patches. whitening: float32 (D, R), along
    the R directions of most variance.
    center, scale: of the logarithm of the squared distance there.
    """

    mean: Array
    deviation: Array
    whitening: Array
    center: float
    scale: float

    def scores(self, tokens: Array) -> Array:
        """Return the score, float32 (...,), of tokens (..., D)."""
        whitened = (tokens.astype(np.float32) - self.mean) @ self.whitening
        distance = np.maximum((whitened * whitened).sum(-1), np.float32(LEAST_DISTANCE))
        return ((np.log(distance) - self.center) / self.scale).astype(np.float32)

    def standardised(self, tokens: Array, most: float) -> Array:
        """Return tokens (..., D) in their deviations on normal patches, cut to [-most, most]."""
        values = (tokens.astype(np.float32) - self.mean) / self.deviation
        return np.clip(values, -most, most)


def fit_teacher(
    features: FeatureSet,
    names: Sequence[str],
    chosen: Sequence[str],
    sources: Sequence[str],
    config: BaselineConfig,
    patches: PatchSettings,
) -> Teacher:
    """
    Fit the distance to the chosen classes together, one mean, on labelled images.

    features: of the teacher, all of its layers. names: classes by label id. sources: of the
    images. config: shrinkage, standardise, balance and rank, see BaselineConfig.
    """
    tokens, starts = normal_tokens(features, names, chosen, patches)
    weights = source_weights(sources, starts) if config.balance else np.ones(len(tokens))
    return fit_distance(tokens, weights, config.shrinkage, config.standardise, config.rank)


def fit_distance(
    tokens: Array,
    weights: npt.NDArray[np.float64],
    shrinkage: float,
    standardise: bool,
    rank: int = 0,
) -> Teacher:
    """Fit a distance to the mean of tokens (N, D), weighted by (N,); see BaselineConfig."""
    fit = fit_mahalanobis([tokens], shrinkage, [weights], standardise)
    mean = fit['means'][0].astype(np.float32)
    whitening = fit['whitening'][:, : rank or None].astype(np.float32)
    deviation = (tokens.std(0) + _LEAST).astype(np.float32)
    plain = Teacher(mean, deviation, whitening, 0.0, 1.0).scores(tokens)
    return Teacher(
        mean, deviation, whitening, float(np.average(plain, weights=weights)), float(plain.std())
    )


def normal_tokens(
    features: FeatureSet, names: Sequence[str], chosen: Sequence[str], patches: PatchSettings
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the tokens of normal patches, float32 (N, D), and where each image's begin."""
    selection = select_patches(features, names, patches)
    layers = [gather_tokens(features, layer, selection) for layer in features.tokens]
    places = [list(names).index(name) for name in chosen]
    images = range(len(features.names))
    parts = [
        np.concatenate([layer[place].of_images([i]) for layer in layers], 1)
        for i in images
        for place in places
    ]
    counts = [
        sum(len(part) for part in parts[i * len(places) : (i + 1) * len(places)]) for i in images
    ]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.concatenate(parts).astype(np.float32), starts
