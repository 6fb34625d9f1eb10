# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `knn`."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices

from ...backbones.base import parse_layer

SCORES = ('combined', 'distance', 'logsumexp')
CORESETS = ('random', 'condensation')
UPSAMPLES = ('bilinear', 'nearest')


@dataclass(frozen=True)
class KnnConfig:
    """
    Which references, and which score of them (the paper's choices but for `images`,
    `references`, 100 000 there, and `upsample`).

    feature: layer and kind, such as keys_11, values_8 or tokens_11. head_split: search every
        attention head's part of it apart and average the distances.
    images: drawn of those that are fitted on, 0 = all; the paper draws 500.
    k: neighbours. references: how many are drawn, 0 = all. coreset: 'random' or 'condensation'
        (etalons of every class, as the recipe's condensation section says; `references` is not
        read then).
    score: 'combined', or for ablations 'distance' or 'logsumexp' alone.
    upsample: of the distance map, 'bilinear' or the paper's 'nearest'.
    normaliser_features: among so many features the largest distance to the k nearest others is
        taken for the distance's unit.
    """

    feature: str = 'keys_11'
    head_split: bool = False
    k: int = 3
    references: int = 10_000
    coreset: str = 'random'
    score: str = 'combined'
    upsample: str = 'bilinear'
    normaliser_features: int = 30_000
    seed: int = 42
    images: int = 0

    def __post_init__(self) -> None:
        parse_layer(self.feature)
        check_choices('knn', self, score=SCORES, coreset=CORESETS, upsample=UPSAMPLES)
        few = min(self.references, self.images) < 0
        if self.k < 1 or few or self.normaliser_features <= self.k:
            raise ConfigError(
                f'knn k {self.k}, images {self.images}, references {self.references}, '
                f'normaliser_features {self.normaliser_features}: give k of at least 1, images '
                'and references of 0 (all) or more, and more normaliser_features than k'
            )
