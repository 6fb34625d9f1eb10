# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Average precision, AUROC, FPR95 and best F1 over the pooled pixels of a set, exactly.

Every threshold is ``score >= t``; label 1 is an anomaly, 0 is normal, all others are ignored; the
pixels of all pictures are pooled, never averaged per picture. Ranking is done on the float32
surprisal itself: positives and negatives are sorted apart, and each distinct positive score is
looked up among the negatives, which needs no argsort of tens of millions of pixels.

Other variants of FPR95 and whole curves: curves.py. The leaderboard's histogram: smiyc.py. Data
sets that do not fit into memory: streaming.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .aupro import RegionPicture
from .histograms import (
    TRUE_POSITIVE_RATE,
    Float64Array,
    Int64Array,
    MetricSamples,
    PictureHistograms,
    component_precision,
    from_above,
    picture_histograms,
)
from .pixels import ScoredPicture, pool, scored_picture

__all__ = [
    'TRUE_POSITIVE_RATE',
    'Float64Array',
    'Int64Array',
    'MetricSamples',
    'PictureHistograms',
    'PixelMetrics',
    'ScoredPicture',
    'component_average_precision',
    'picture_histograms',
    'pixel_metrics',
    'pool',
    'scored_picture',
]


@dataclass(frozen=True)
class PixelMetrics:
    """
    The metrics of one set of pixels; nan where the set cannot define them.

    average_precision: step rule (sum of recall steps times precision), nan without positives.
    average_precision_missed: the same when the anomaly pixels outside the region of interest
        count as never found.
    fpr95: false positive rate at the first point, from high scores, with recall >= 0.95.
    auroc: area under the ROC curve, a tie counting half.
    positives, negatives, missed: numbers of pixels.
    best_f1: largest 2 TP / (2 TP + FP + FN) over all thresholds, nan without positives.
    best_f1_threshold: the highest threshold that reaches it; the prediction is score >= it.
    """

    average_precision: float
    average_precision_missed: float
    fpr95: float
    auroc: float
    positives: int
    negatives: int
    missed: int = 0
    best_f1: float = float('nan')
    best_f1_threshold: float = float('nan')


def pixel_metrics(pixels: ScoredPicture) -> PixelMetrics:
    """Return the exact metrics of the pooled pixels (see pool)."""
    count, other = pixels.positives.size, pixels.negatives.size
    if count == 0:
        return PixelMetrics(np.nan, np.nan, np.nan, np.nan, 0, other, pixels.missed)
    scores, below = np.unique(pixels.positives, return_index=True)
    found = (count - below).astype(np.float64)
    negatives_below = np.searchsorted(pixels.negatives, scores, 'left')
    alarms = (other - negatives_below).astype(np.float64)
    share = np.diff(below, append=count) / count
    precision = float(np.sum(share * found / (found + alarms)))
    with_missed = precision * count / (count + pixels.missed)
    f1 = 2 * found / (found + alarms + count)
    best = f1.size - 1 - int(np.argmax(f1[::-1]))
    auroc, fpr95 = float('nan'), float('nan')
    if other > 0:
        ties = np.searchsorted(pixels.negatives, scores, 'right') - negatives_below
        auroc = float(np.sum(share * (negatives_below + 0.5 * ties))) / other
        fpr95 = float(alarms[np.flatnonzero(found / count >= TRUE_POSITIVE_RATE)[-1]] / other)
    return PixelMetrics(
        average_precision=precision,
        average_precision_missed=with_missed,
        fpr95=fpr95,
        auroc=auroc,
        positives=count,
        negatives=other,
        missed=pixels.missed,
        best_f1=float(f1[best]),
        best_f1_threshold=float(scores[best]),
    )


def component_average_precision(pixels: RegionPicture) -> float:
    """
    Return the exact AP in which every true component weighs the same, whatever its size.

    pixels: pooled pictures (aupro.region_picture, pool_regions). Definition: see
    histograms.component_precision. nan where no component counts.
    """
    if pixels.components == 0 or not pixels.shares.any():
        return float('nan')
    scores, first = np.unique(pixels.positives, return_index=True)
    shares = from_above(np.add.reduceat(pixels.shares, first)[None])
    below = np.searchsorted(pixels.negatives, scores, 'left')[::-1]
    alarms = (pixels.negatives.size - below).astype(np.float64)
    return float(component_precision(shares, alarms[None], np.array([pixels.positives.size]))[0])
