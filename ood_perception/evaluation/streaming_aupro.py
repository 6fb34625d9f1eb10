# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AUPRO of products of any size, in the bins and with the kind of bounds of streaming.py."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from .aupro import FPR_LIMIT, RegionPicture
from .histograms import Float64Array, Int64Array
from .pixels import ScoredPicture
from .streaming import BITS, UNDEFINED, Bounded, StreamedScores, score_bins


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
        """Bound AUPRO: in each bin the regions are found before the alarms, or after them."""
        if not 0.0 < limit <= 1.0:
            raise ConfigError(f'the FPR limit {limit} of AUPRO must lie between 0 and 1')
        total = int(self.negatives.sum())
        if self.components == 0 or total == 0:
            return UNDEFINED
        rises = self.shares[::-1] / self.components
        fallout = np.cumsum(self.negatives[::-1]) / total
        start = np.concatenate([[0.0], fallout[:-1]])
        width = np.minimum(fallout, limit) - np.minimum(start, limit)
        after = np.cumsum(rises)
        low, high = np.sum(width * (after - rises)) / limit, np.sum(width * after) / limit
        part = np.divide(width, fallout - start, out=np.zeros_like(width), where=width > 0)
        value = np.sum(width * (after - rises + 0.5 * part * rises)) / limit
        return Bounded(float(value), float(low), float(high))
