# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Whole precision-recall and ROC curves, and the four definitions of FPR95 that papers publish.

A point of a curve is one distinct score t, from high to low, and counts ``score >= t``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..types import Float32Array
from .histograms import TRUE_POSITIVE_RATE, Float64Array, Int64Array
from .pixels import ScoredPicture


@dataclass(frozen=True)
class Curve:
    """
    Counts at every distinct score of a set, from the highest to the lowest.

    thresholds: float32 (K,), strictly descending.
    found, alarms: int64 (K,), anomaly and normal pixels with score >= threshold.
    positives, negatives: all anomaly and normal pixels.
    """

    thresholds: Float32Array
    found: Int64Array
    alarms: Int64Array
    positives: int
    negatives: int

    @property
    def recall(self) -> Float64Array:
        """Recall (true positive rate), float64 (K,); nan without positives."""
        return _share(self.found, self.positives)

    @property
    def fallout(self) -> Float64Array:
        """False positive rate, float64 (K,); nan without negatives."""
        return _share(self.alarms, self.negatives)

    @property
    def precision(self) -> Float64Array:
        """Precision, float64 (K,)."""
        return self.found / (self.found + self.alarms)


def _share(counts: Int64Array, total: int) -> Float64Array:
    if total == 0:
        return np.full(counts.shape, np.nan)
    return counts / total


def full_curve(pixels: ScoredPicture) -> Curve:
    """
    Return the curve over every distinct score, those of normal pixels included.

    Memory: up to 20 bytes per pixel; for sets that are too large see streaming.py.
    """
    scores = np.unique(np.concatenate([pixels.positives, pixels.negatives]))[::-1]
    return Curve(
        scores,
        pixels.positives.size - np.searchsorted(pixels.positives, scores, 'left'),
        pixels.negatives.size - np.searchsorted(pixels.negatives, scores, 'left'),
        pixels.positives.size,
        pixels.negatives.size,
    )


def fpr95(curve: Curve, variant: str = 'benchmark') -> float:
    """
    Return the false positive rate at a recall of 0.95 by one of FPR95_VARIANTS.

    nan without positives or without negatives. ConfigError for an unknown variant.
    """
    if variant not in FPR95_VARIANTS:
        raise ConfigError(f'unknown variant {variant!r} of FPR95; known are {[*FPR95_VARIANTS]}')
    if curve.positives == 0 or curve.negatives == 0:
        return float('nan')
    return FPR95_VARIANTS[variant](curve)


def fpr95_variants(curve: Curve) -> dict[str, float]:
    """Return FPR95 by every published definition: variant -> value."""
    return {variant: fpr95(curve, variant) for variant in FPR95_VARIANTS}


def _first_reaching(curve: Curve) -> float:
    """First point with recall >= 0.95 of all points: Fishyscapes, SMIYC, UEM."""
    return float(curve.fallout[np.argmax(curve.recall >= TRUE_POSITIVE_RATE)])


def _first_above(curve: Curve) -> float:
    """First corner with recall > 0.95: RbA, DenseHybrid."""
    corners = _corners(curve)
    return float(curve.fallout[corners][np.argmax(curve.recall[corners] > TRUE_POSITIVE_RATE)])


def strict_threshold(curve: Curve) -> float:
    """Return the score of the 'strict' point (open-set calibration); nan without positives."""
    if curve.positives == 0:
        return float('nan')
    corners = _corners(curve)
    first = np.argmax(curve.recall[corners] > TRUE_POSITIVE_RATE)
    return float(curve.thresholds[corners][first])


def _nearest_recall(curve: Curve) -> float:
    """Point with the recall nearest to 0.95, from the lowest threshold up: RPL."""
    stop = int(np.argmax(curve.found == curve.positives)) + 1
    distance = np.abs(curve.recall[:stop] - TRUE_POSITIVE_RATE)
    return float(curve.fallout[stop - 1 - np.argmin(distance[::-1])])


def _nearest_corner(curve: Curve) -> float:
    """Corner with the recall nearest to 0.95, from the highest threshold down: cDNP."""
    corners = _corners(curve)
    recall = np.concatenate([[0.0], curve.recall[corners]])
    fallout = np.concatenate([[0.0], curve.fallout[corners]])
    return float(fallout[np.argmin(np.abs(recall - TRUE_POSITIVE_RATE))])


FPR95_VARIANTS: dict[str, Callable[[Curve], float]] = {
    'benchmark': _first_reaching,
    'strict': _first_above,
    'nearest_recall': _nearest_recall,
    'nearest_roc_corner': _nearest_corner,
}


def _corners(curve: Curve) -> Int64Array:
    """
    Return the points that scikit-learn's roc_curve keeps: not those on a line with even steps.

    It compares second differences of the counts, so points on a line with uneven steps stay.
    """
    if curve.thresholds.size <= 2:
        return np.arange(curve.thresholds.size)
    bent = (np.diff(curve.alarms, 2) != 0) | (np.diff(curve.found, 2) != 0)
    return np.flatnonzero(np.concatenate([[True], bent, [True]]))


@dataclass(frozen=True)
class PlotLine:
    """
    A curve with few enough points to draw, joined by straight lines.

    x, y: float64 (M,), x ascending. thresholds: float64 (M,), the score of each point (inf where
    nothing is flagged). error: no point of the full line is further than this from the drawn one,
    and none of the drawn one further from the full one, measured along x.
    """

    x: Float64Array
    y: Float64Array
    thresholds: Float64Array
    error: float


def roc_line(curve: Curve, error: float = 1e-3) -> PlotLine:
    """Return fallout -> recall from (0, 0) to (1, 1), at most about 4 / error points."""
    return _thinned(
        np.concatenate([[0.0], curve.fallout]),
        np.concatenate([[0.0], curve.recall]),
        np.concatenate([[np.inf], curve.thresholds.astype(np.float64)]),
        error,
    )


def precision_recall_line(curve: Curve, error: float = 1e-3) -> PlotLine:
    """
    Return recall -> precision, at most about 4 / error points.

    It starts at the highest score: at recall 0 the precision is not defined. Average precision is
    a step rule over the full curve, never the area under this line.
    """
    return _thinned(curve.recall, curve.precision, curve.thresholds.astype(np.float64), error)


def _thinned(x: Float64Array, y: Float64Array, at: Float64Array, error: float) -> PlotLine:
    """
    Keep the first, last, lowest and highest point of every column of width `error`.

    Inside a column both lines run through all values between its lowest and its highest, so
    neither can be further than one column from the other.
    """
    if not 0.0 < error <= 1.0:
        raise ConfigError(f'the error {error} of a thinned curve must lie between 0 and 1')
    if x.size == 0 or np.isnan(x[-1]) or np.isnan(y[-1]):
        empty = np.empty(0)
        return PlotLine(empty, empty, empty, error)
    starts = np.flatnonzero(np.diff(np.floor(x / error), prepend=-1.0)).tolist()
    kept: set[int] = set()
    for start, stop in zip(starts, [*starts[1:], x.size], strict=True):
        column = y[start:stop]
        kept |= {start, start + int(column.argmin()), start + int(column.argmax()), stop - 1}
    chosen = np.array(sorted(kept))
    return PlotLine(x[chosen], y[chosen], at[chosen], error)
