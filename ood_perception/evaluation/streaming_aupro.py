# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AUPRO of products of any size, in the bins and with bounds of streaming.py."""

from __future__ import annotations

import numpy as np

from .aupro import FPR_LIMIT, RegionPicture
from .bounds import Bounded, bounded_aupro
from .histograms import Float64Array, Int64Array
from .pixels import ScoredPicture
from .streaming import BITS, StreamedScores, score_bins


class StreamedRegions:
    """
    AUPRO of one product in constant memory: summed weights of anomaly pixels per bin of score.

    shares: float64 (2^bits,). negatives: int64 (2^bits,). components: their number.
    """

    def __init__(self, bits: int = BITS) -> None:
        self._scores = StreamedScores(bits)
        self.bits = bits
        self.shares: Float64Array = np.zeros(1 << bits)
        self.components = 0

    @property
    def negatives(self) -> Int64Array:
        """Normal pixels per bin, int64 (2^bits,)."""
        return self._scores.negatives

    def add(self, picture: RegionPicture) -> None:
        """Count one picture (aupro.region_picture)."""
        self._scores.add(ScoredPicture(picture.positives, picture.negatives))
        np.add.at(self.shares, score_bins(picture.positives, self.bits), picture.shares)
        self.components += picture.components

    def merge(self, other: StreamedRegions) -> None:
        """Add another process's part of the same product."""
        self._scores.merge(other._scores)
        self.shares += other.shares
        self.components += other.components

    def aupro(self, limit: float = FPR_LIMIT) -> Bounded:
        """Return AUPRO with its bounds; ConfigError for a limit outside (0, 1]."""
        return bounded_aupro(self.shares, self.negatives, self.components, limit)
