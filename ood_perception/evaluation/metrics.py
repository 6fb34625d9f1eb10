# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Average precision, AUROC and FPR95 over the pooled pixels of a set, as the benchmarks define them.

Every threshold is ``score >= t``; label 1 is an anomaly, 0 is normal, all others are ignored; the
pixels of all pictures are pooled, never averaged per picture. Ranking is done on the float32
surprisal itself: positives and negatives are sorted apart, and each distinct positive score is
looked up among the negatives, which needs no argsort of tens of millions of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import BoolArray, Float32Array, UInt8Array

TRUE_POSITIVE_RATE = 0.95

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


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
    """

    average_precision: float
    average_precision_missed: float
    fpr95: float
    auroc: float
    positives: int
    negatives: int
    missed: int = 0


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
    if other == 0:
        return PixelMetrics(precision, with_missed, np.nan, np.nan, count, 0, pixels.missed)
    ties = np.searchsorted(pixels.negatives, scores, 'right') - negatives_below
    auroc = float(np.sum(share * (negatives_below + 0.5 * ties))) / other
    first = np.flatnonzero(found / count >= TRUE_POSITIVE_RATE)[-1]
    return PixelMetrics(
        precision, with_missed, float(alarms[first] / other), auroc, count, other, pixels.missed
    )


@dataclass(frozen=True)
class MetricSamples:
    """Metrics of R weighted sets of pictures: float64 (R,) each, nan where undefined."""

    average_precision: Float64Array
    average_precision_missed: Float64Array
    fpr95: Float64Array
    auroc: Float64Array


@dataclass(frozen=True)
class PictureHistograms:
    """
    Per-picture score histograms: the metrics of any multiset of pictures follow cheaply.

    Bin j holds the scores in [edges[j], edges[j + 1]); the last one is open. Every edge is a
    threshold of the exact curve, so each point of the binned curve is exact and only points
    between are left out. With 16384 bins of quantiles AP, AUROC and FPR95 differ from the exact
    values by less than 3e-4 (tested).

    edges: float32 (M,), ascending, edges[0] = -inf.
    positives, negatives: int64 (n, M).
    missed: int64 (n,), anomaly pixels outside the region of interest.
    """

    edges: Float32Array
    positives: Int64Array
    negatives: Int64Array
    missed: Int64Array

    def merged(self, other: PictureHistograms) -> PictureHistograms:
        """Return the pictures of both; both must have the same edges (else DataError)."""
        if not np.array_equal(self.edges, other.edges):
            raise DataError('histograms with different edges cannot be merged; bin them together')
        return PictureHistograms(
            self.edges,
            np.concatenate([self.positives, other.positives]),
            np.concatenate([self.negatives, other.negatives]),
            np.concatenate([self.missed, other.missed]),
        )

    def metrics(self, weights: Float64Array) -> MetricSamples:
        """Return the metrics of R multisets; weights: float64 (R, n), picture multiplicities."""
        found = _from_above(weights @ self.positives.astype(np.float64))
        alarms = _from_above(weights @ self.negatives.astype(np.float64))
        return _curve_metrics(found, alarms, weights @ self.missed.astype(np.float64))


def _from_above(counts: Float64Array) -> Float64Array:
    """Cumulate (R, M) counts from the highest bin down: column j = pixels above threshold j."""
    return np.cumsum(counts[:, ::-1], axis=1)


def _curve_metrics(
    found: Float64Array, alarms: Float64Array, missed: Float64Array
) -> MetricSamples:
    """Evaluate curves (R, M) whose columns run from the highest threshold to the lowest."""
    count, other = found[:, -1:], alarms[:, -1:]
    with np.errstate(divide='ignore', invalid='ignore'):
        precision = np.where(found > 0, found / (found + alarms), 0.0)
        recall, fallout = found / count, alarms / other
        steps = np.diff(recall, axis=1, prepend=0.0)
        average = np.sum(steps * precision, axis=1)
        heights = recall - 0.5 * steps
        auroc = np.sum(np.diff(fallout, axis=1, prepend=0.0) * heights, axis=1)
        with_missed = average * count[:, 0] / (count[:, 0] + missed)
    first = np.argmax(recall >= TRUE_POSITIVE_RATE, axis=1)
    fpr95 = np.take_along_axis(fallout, first[:, None], axis=1)[:, 0]
    fpr95 = np.where(count[:, 0] > 0, fpr95, np.nan)
    return MetricSamples(average, with_missed, fpr95, auroc)


def picture_histograms(pictures: Sequence[ScoredPicture], bins: int = 16384) -> PictureHistograms:
    """Bin pictures by the quantiles of their pooled positives (half) and negatives (half)."""
    edges = _quantile_edges(pool(pictures), bins)
    return PictureHistograms(
        edges,
        np.stack([_histogram(p.positives, edges) for p in pictures]),
        np.stack([_histogram(p.negatives, edges) for p in pictures]),
        np.array([p.missed for p in pictures], np.int64),
    )


def _quantile_edges(pixels: ScoredPicture, bins: int) -> Float32Array:
    """Return at most `bins` ascending edges, the first -inf, the others scores of the pool."""
    edges = [np.array([-np.inf], np.float32)]
    for ordered, number in ((pixels.positives, bins // 2), (pixels.negatives, bins // 2 - 1)):
        if ordered.size:
            ranks = np.linspace(0, ordered.size - 1, number).astype(np.int64)
            edges.append(ordered[ranks])
    return np.unique(np.concatenate(edges))


def _histogram(ordered: Float32Array, edges: Float32Array) -> Int64Array:
    """Count ascending scores per bin: a lookup of the edges instead of one per pixel."""
    below = np.searchsorted(ordered, edges, 'left')
    return np.diff(below, append=ordered.size).astype(np.int64)
