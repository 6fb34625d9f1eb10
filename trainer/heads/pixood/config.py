# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `condensation`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ood_perception.errors import check_choices, check_least

from ...nets.patch_classifier import MATMULS

SOFT_METHODS = ('condensation', 'soft_kmeans', 'soft_kmedians')
METHODS = (*SOFT_METHODS, 'kmeans', 'single_mean')


@dataclass(frozen=True)
class CondensationSettings:
    """
    How etalons are found.

    method: 'condensation' (Eq. 8-10), its ablations 'soft_kmeans' and 'soft_kmedians' (same
        weights, loss w d^2 and w d), 'kmeans' (Lloyd), 'single_mean' (one etalon, the mean).
    etalons: K, the budget of each class; at most its patches / patches_per_etalon.
    epochs: length of the schedule: the first epoch warms up, the last tenth cools down, between
        them unsupported etalons are moved (when reinitialise).
    images: images a batch. learning_rate: AdamW's, cosine to 0 over the epochs.
    standardise: distances in the deviations of each dimension over the patches of all classes, in
        which no dimension counts for its size alone.
    matmul: 'f32', or 'bf16' for products of factors rounded to bfloat16 (sums stay float32); on a
        CPU it hardly pays: batches differ in size, and each new size costs a new kernel.
    """

    method: str = 'condensation'
    etalons: int = 1000
    patches_per_etalon: int = 20
    epochs: int = 100
    images: int = 4
    learning_rate: float = 0.1
    reinitialise: bool = True
    standardise: bool = False
    matmul: str = 'f32'
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('condensation', self, method=METHODS, matmul=MATMULS)
        names = ('etalons', 'patches_per_etalon', 'epochs', 'images')
        check_least('condensation', self, 1, *names)

    def budget(self, patches: int) -> int:
        """Return K for a class with this many patches: 0 without patches, else 1 or more."""
        if patches == 0 or self.method == 'single_mean':
            return min(patches, 1)
        return max(1, min(self.etalons, patches // self.patches_per_etalon))

    def inverse_temperature(self, epoch: int) -> float:
        """Return T = 1 / tau of an epoch: from 0.5 to 2 along a half cosine."""
        return 0.5 + 0.75 * (1 - math.cos(math.pi * epoch / self.epochs))

    def moves_etalons(self, epoch: int) -> bool:
        """Return whether unsupported etalons are re-initialised in this epoch."""
        return self.reinitialise and 1 <= epoch < 0.9 * self.epochs
