# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The scored pixels of pictures, split by their labels: what every exact pixel metric starts from.

Label 1 is an anomaly, 0 is normal, all others are ignored. The pixels of all pictures are pooled,
never averaged per picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..types import BoolArray, Float32Array, UInt8Array


@dataclass(frozen=True)
class ScoredPicture:
    """
    The valid pixels of one picture (or of a pool of pictures).

    positives, negatives: float32, scores of the anomaly and of the normal pixels, ascending.
    missed: number of anomaly pixels that the region of interest leaves out.
    """

    positives: Float32Array
    negatives: Float32Array
    missed: int = 0


def scored_picture(
    scores: Float32Array, labels: UInt8Array, roi: BoolArray | None = None
) -> ScoredPicture:
    """
    Split one picture's scores by its labels.

    scores: float32 (H, W), higher = stranger, no NaN where scored.
    labels: uint8 (H, W), 1 anomaly, 0 normal, everything else ignored.
    roi: bool (H, W), pixels to score; None scores all.
    Raises DataError for unequal shapes or NaN scores.
    """
    if scores.shape != labels.shape or (roi is not None and roi.shape != labels.shape):
        raise DataError(
            f'scores {scores.shape}, labels {labels.shape} and region of interest '
            f'{None if roi is None else roi.shape} differ in size; resize the scores to the labels'
        )
    anomaly, normal = labels == 1, labels == 0
    missed = 0
    if roi is not None:
        missed = int(np.count_nonzero(anomaly & ~roi))
        anomaly, normal = anomaly & roi, normal & roi
    return ScoredPicture(_sorted(scores[anomaly]), _sorted(scores[normal]), missed)


def _sorted(scores: Float32Array) -> Float32Array:
    """Sort a fresh array in place; NaN sorts last, so one look finds it."""
    ordered = scores.astype(np.float32, copy=False)
    ordered.sort()
    if ordered.size and np.isnan(ordered[-1]):
        raise DataError(
            f'{int(np.isnan(ordered).sum())} of {ordered.size} scores are NaN; '
            'leave pixels that are not scored out of the region of interest'
        )
    return ordered


def pool(pictures: Sequence[ScoredPicture]) -> ScoredPicture:
    """Pool pictures into one; memory: one float32 copy of all valid pixels."""
    empty = np.empty(0, np.float32)
    return ScoredPicture(
        _sorted(np.concatenate([empty, *(p.positives for p in pictures)])),
        _sorted(np.concatenate([empty, *(p.negatives for p in pictures)])),
        sum(p.missed for p in pictures),
    )
