# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Percentile bootstrap over pictures: intervals of metrics and of paired differences.

The picture, not the pixel, is the unit that is drawn again: pixels of one picture are anything but
independent. Pictures of one drive resemble each other too, which no resampling of them can see.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..errors import DataError
from .metrics import Float64Array, MetricSamples, PictureHistograms

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 128
METRICS = tuple(field.name for field in fields(MetricSamples))


@dataclass(frozen=True)
class Interval:
    """
    A two-sided percentile interval.

    low, high: the ends; nan when no resample defines the value.
    undefined: number of resamples that define no value (no anomaly among the drawn pictures).
    """

    low: float
    high: float
    undefined: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: a paired difference that is resolved."""
        return self.low > 0.0 or self.high < 0.0


def resample_weights(pictures: int, resamples: int = RESAMPLES, seed: int = 0) -> Float64Array:
    """
    Draw `resamples` times n of n pictures with replacement.

    Returns float64 (resamples, n): how often each picture was drawn; rows sum to n. The same
    arguments give the same draw, so rows evaluated with it are paired.
    """
    if pictures < 1 or resamples < 1:
        raise DataError(
            f'cannot resample {pictures} pictures {resamples} times; give at least one'
        )
    return (
        np.random.default_rng(seed)
        .multinomial(pictures, np.full(pictures, 1.0 / pictures), size=resamples)
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


def metric_samples(pictures: PictureHistograms, weights: Float64Array) -> dict[str, Float64Array]:
    """Return every metric of every resample: name -> float64 (R,); weights: (R, n)."""
    parts = [
        pictures.metrics(weights[start : start + _CHUNK])
        for start in range(0, len(weights), _CHUNK)
    ]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in METRICS}


def metric_intervals(
    pictures: PictureHistograms, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % interval of each metric over pictures."""
    weights = resample_weights(len(pictures.missed), resamples, seed)
    samples = metric_samples(pictures, weights)
    return {name: percentile_interval(values) for name, values in samples.items()}


def paired_difference(
    first: PictureHistograms, second: PictureHistograms, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """
    Return the 95 % interval of (first - second) of each metric, both on the same drawn pictures.

    Raises DataError when the two do not hold the same number of pictures.
    """
    if len(first.missed) != len(second.missed):
        raise DataError(
            f'{len(first.missed)} and {len(second.missed)} pictures cannot be paired; '
            'evaluate both rows on the same pictures'
        )
    weights = resample_weights(len(first.missed), resamples, seed)
    left, right = metric_samples(first, weights), metric_samples(second, weights)
    return {name: percentile_interval(left[name] - right[name]) for name in METRICS}
