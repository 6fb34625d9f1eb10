# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Percentile bootstrap over images: intervals of metrics and of paired differences.

The image, not the pixel, is the unit that is drawn again: pixels of one image are anything but
independent. Images of one drive resemble each other too, which no resampling of them can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..types import Float32Array, Float64Array, Int64Array
from .pixel import METRICS, Curve, ScoredImage, pixel_metrics, pool

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 128


@dataclass(frozen=True)
class ImageHistograms:
    """
    Per-image score histograms: the metrics of any multiset of images follow cheaply.

    Bin j holds the scores in [edges[j], edges[j + 1]); the last one is open. Every edge is a
    threshold of the exact curve, so each point of the binned curve is exact and only points
    between are left out. With 16384 bins of quantiles AP, AUROC and FPR95 differ from the exact
    values by less than 3e-4 (tested).

    edges: float32 (M,), ascending, edges[0] the least score that there can be.
    positives, negatives: int64 (n, M).
    missed: int64 (n,), anomaly pixels outside the region of interest.
    shares: float64 (n, M), summed weights of the anomaly pixels (aupro.component_shares); without
        them the component-averaged AP is nan.
    components: int64 (n,), true components of each image, which AUPRO needs.
    """

    edges: Float32Array
    positives: Int64Array
    negatives: Int64Array
    missed: Int64Array
    shares: Float64Array | None = None
    components: Int64Array | None = None

    def curve(self, weights: Float64Array) -> Curve:
        """Return the curves of R multisets; weights: float64 (R, n), image multiplicities."""
        found, alarms = from_above(weights @ self.positives), from_above(weights @ self.negatives)
        return Curve(
            self.edges[::-1],
            found,
            alarms,
            found[:, -1],
            alarms[:, -1],
            weights @ self.missed,
            None if self.shares is None else from_above(weights @ self.shares),
        )


def from_above(counts: Float64Array) -> Float64Array:
    """Cumulate (R, M) counts from the highest bin down: column j = pixels above threshold j."""
    return np.cumsum(counts[:, ::-1], axis=1)


def image_histograms(images: Sequence[ScoredImage], bins: int = 16384) -> ImageHistograms:
    """Bin images by quantiles, half of all positives and half of all negatives; DataError."""
    if not images:
        raise DataError('no images: histograms need at least one')
    edges = _quantile_edges(pool(images), bins)
    shares = [_weight_histogram(p, edges) for p in images if p.weights is not None]
    return ImageHistograms(
        edges,
        np.stack([_histogram(p.positives, edges) for p in images]),
        np.stack([_histogram(p.negatives, edges) for p in images]),
        np.array([p.missed for p in images], np.int64),
        np.stack(shares) if len(shares) == len(images) else None,
        np.array([p.components for p in images], np.int64),
    )


def _quantile_edges(pixels: ScoredImage, bins: int) -> Float32Array:
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


def _weight_histogram(image: ScoredImage, edges: Float32Array) -> Float64Array:
    places = np.searchsorted(edges, image.positives, 'right') - 1
    return np.bincount(places, image.weights, minlength=edges.size).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """A percentile interval, nan without values; undefined: resamples that define none."""

    low: float
    high: float
    undefined: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: a paired difference that is resolved."""
        return self.low > 0.0 or self.high < 0.0


def resample_weights(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Float64Array:
    """
    Draw `resamples` times n of n images with replacement.

    Returns float64 (resamples, n): how often each image was drawn; rows sum to n. The same
    arguments give the same draw, so rows evaluated with it are paired.
    """
    if images < 1 or resamples < 1:
        raise DataError(f'cannot resample {images} images {resamples} times; give at least one')
    return (
        np.random.default_rng(seed)
        .multinomial(images, np.full(images, 1.0 / images), size=resamples)
        .astype(np.float64)
    )


def percentile_interval(samples: Float64Array, level: float = LEVEL) -> Interval:
    """Return the central `level` interval of samples (R,), nan samples left out and counted."""
    defined = samples[~np.isnan(samples)]
    undefined = int(samples.size - defined.size)
    if defined.size == 0:
        return Interval(float('nan'), float('nan'), undefined)
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(float(low), float(high), undefined)


def metric_samples(images: ImageHistograms, weights: Float64Array) -> dict[str, Float64Array]:
    """Return every metric of every resample: name -> float64 (R,); weights: (R, n)."""
    parts = [
        pixel_metrics(images.curve(weights[start : start + _CHUNK]))
        for start in range(0, len(weights), _CHUNK)
    ]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in METRICS}


def metric_intervals(
    images: ImageHistograms, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % interval of each metric over images."""
    weights = resample_weights(len(images.missed), resamples, seed)
    samples = metric_samples(images, weights)
    return {name: percentile_interval(values) for name, values in samples.items()}


def paired_difference(
    first: ImageHistograms, second: ImageHistograms, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """
    Return the 95 % interval of (first - second) of each metric, both on the same drawn images.

    Raises DataError when the two do not hold the same number of images.
    """
    if len(first.missed) != len(second.missed):
        raise DataError(
            f'{len(first.missed)} and {len(second.missed)} images cannot be paired; '
            'evaluate both rows on the same images'
        )
    weights = resample_weights(len(first.missed), resamples, seed)
    left, right = metric_samples(first, weights), metric_samples(second, weights)
    return {name: percentile_interval(left[name] - right[name]) for name in METRICS}
