# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Score histograms per picture: the metrics of every resample of the pictures, cheaply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import Float32Array
from .pixels import ScoredPicture, pool

TRUE_POSITIVE_RATE = 0.95

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MetricSamples:
    """Metrics of R weighted sets of pictures: float64 (R,) each, nan where undefined."""

    average_precision: Float64Array
    average_precision_missed: Float64Array
    fpr95: Float64Array
    auroc: Float64Array
    best_f1: Float64Array
    component_average_precision: Float64Array


@dataclass(frozen=True)
class PictureHistograms:
    """
    Per-picture score histograms: the metrics of any multiset of pictures follow cheaply.

    Bin j holds the scores in [edges[j], edges[j + 1]); the last one is open. Every edge is a
    threshold of the exact curve, so each point of the binned curve is exact and only points
    between are left out. With 16384 bins of quantiles AP, AUROC and FPR95 differ from the exact
    values by less than 3e-4 (tested).

    edges: float32 (M,), ascending, edges[0] the least score that there can be.
    positives, negatives: int64 (n, M).
    missed: int64 (n,), anomaly pixels outside the region of interest.
    shares: float64 (n, M), summed weights of the anomaly pixels (aupro.component_shares); without
        them the component-averaged AP is nan.
    """

    edges: Float32Array
    positives: Int64Array
    negatives: Int64Array
    missed: Int64Array
    shares: Float64Array | None = None

    def merged(self, other: PictureHistograms) -> PictureHistograms:
        """Return the pictures of both; both must have the same edges (else DataError)."""
        if not np.array_equal(self.edges, other.edges):
            raise DataError('histograms with different edges cannot be merged; bin them together')
        return PictureHistograms(
            self.edges,
            np.concatenate([self.positives, other.positives]),
            np.concatenate([self.negatives, other.negatives]),
            np.concatenate([self.missed, other.missed]),
            None
            if self.shares is None or other.shares is None
            else np.concatenate([self.shares, other.shares]),
        )

    def metrics(self, weights: Float64Array) -> MetricSamples:
        """Return the metrics of R multisets; weights: float64 (R, n), picture multiplicities."""
        found = from_above(weights @ self.positives.astype(np.float64))
        alarms = from_above(weights @ self.negatives.astype(np.float64))
        pixels = curve_metrics(found, alarms, weights @ self.missed.astype(np.float64))
        if self.shares is None:
            return pixels
        shares = from_above(weights @ self.shares)
        precision = component_precision(shares, alarms, found[:, -1])
        return replace(pixels, component_average_precision=precision)


def from_above(counts: Float64Array) -> Float64Array:
    """Cumulate (R, M) counts from the highest bin down: column j = pixels above threshold j."""
    return np.cumsum(counts[:, ::-1], axis=1)


def curve_metrics(
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
        best_f1 = np.max(2 * found / (found + alarms + count), axis=1)
    first = np.argmax(recall >= TRUE_POSITIVE_RATE, axis=1)
    fpr95 = np.take_along_axis(fallout, first[:, None], axis=1)[:, 0]
    fpr95 = np.where(count[:, 0] > 0, fpr95, np.nan)
    best_f1 = np.where(count[:, 0] > 0, best_f1, np.nan)
    undefined = np.full_like(average, np.nan)
    return MetricSamples(average, with_missed, fpr95, auroc, best_f1, undefined)


def component_precision(
    shares: Float64Array, alarms: Float64Array, positives: Float64Array
) -> Float64Array:
    """
    Return the component-averaged AP (R,) of curves from the highest threshold to the lowest.

    AP with anomaly pixels that weigh 1 / size of their component, all weights scaled so that they
    sum to the number of anomaly pixels: recall is the mean over components of the share that is
    found, and the balance of anomalies and normal pixels stays.

    shares, alarms: float (R, K), cumulated weights and normal pixels. positives: (R,), anomaly
    pixels. nan where no component counts.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        recall = shares / shares[:, -1:]
        found = recall * positives[:, None]
        precision = np.where(found > 0, found / (found + alarms), 0.0)
    average: Float64Array = np.sum(np.diff(recall, axis=1, prepend=0.0) * precision, axis=1)
    return average


def picture_histograms(pictures: Sequence[ScoredPicture], bins: int = 16384) -> PictureHistograms:
    """
    Bin pictures by the quantiles of their pooled positives (half) and negatives (half).

    Raises DataError without pictures.
    """
    if not pictures:
        raise DataError('no pictures: histograms need at least one')
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
