# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Target against observed rate: flagged share of in-distribution pixels per class and pooled.

At a target false-alarm rate a pixel is flagged when surprisal >= -log10(rate), as in the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..types import BoolArray, Float64Array, Int64Array
from .bootstrap import RESAMPLES, Interval, percentile_interval, resample_weights

POOLED = 'pooled'
EVERY_GROUP = 'all'
RATES = (0.01, 0.02, 0.05)
FACTOR = 2.0


@dataclass(frozen=True)
class RateRow:
    """
    One line of the table.

    target, observed: rates in (0, 1) and [0, 1]; observed is nan without pixels.
    interval: 95 % bootstrap interval of observed over the group's images.
    pixels, images: how much it rests on (images that hold the class).
    kept: observed lies within target / 2 ... target * 2.
    """

    group: str
    class_name: str
    target: float
    observed: float
    interval: Interval
    pixels: int
    images: int
    kept: bool


def rate_rows(
    flagged: Int64Array,
    pixels: Int64Array,
    groups: Sequence[str],
    class_names: Sequence[str],
    pooled: Sequence[str],
    rates: Sequence[float] = RATES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[RateRow]:
    """
    Compare observed with target rates: per group and over all, per class and pooled.

    flagged: int64 (n, R, C), pixels of class c of an image that are flagged at rate r. pixels:
    int64 (n, C), scored ones. groups: of the images, what is reported apart, such as sequences.
    class_names: names by id. pooled: the names that the pooled row sums (the in-distribution set).
    Classes without a single pixel in a group are left out.
    """
    unknown = sorted(set(pooled) - set(class_names))
    if unknown:
        raise ConfigError(f'unknown classes {unknown}; known are {list(class_names)}')
    chosen = np.isin(np.array(class_names), list(pooled))
    apart = sorted(set(groups))
    rows: list[RateRow] = []
    for group in [EVERY_GROUP, *apart] if len(apart) > 1 else [EVERY_GROUP]:
        members = [place for place, own in enumerate(groups) if group in (EVERY_GROUP, own)]
        weights = resample_weights(len(members), resamples, seed)
        alarms = _with_pooled(flagged[members], chosen)
        scored = _with_pooled(pixels[members], chosen)
        for index, name in enumerate([*class_names, POOLED]):
            if scored[:, index].sum() > 0:
                rows += [
                    _row(group, name, rate, alarms[:, number, index], scored[:, index], weights)
                    for number, rate in enumerate(rates)
                ]
    return rows


def observed_rate(
    flagged: Float64Array, pixels: Float64Array, weights: Float64Array
) -> tuple[float, Interval]:
    """
    Return the flagged fraction of all pixels, nan without any, and its interval.

    flagged, pixels: float64 (n,), per image. weights: float64 (R, n), bootstrap.
    """
    drawn, total = weights @ pixels, pixels.sum()
    samples = np.where(drawn > 0, (weights @ flagged) / np.maximum(drawn, 1.0), np.nan)
    observed = float(flagged.sum() / total) if total else float('nan')
    return observed, percentile_interval(samples)


def _with_pooled(counts: Int64Array, chosen: BoolArray) -> Float64Array:
    """Append the sum over the chosen classes as one more column."""
    pooled = counts[..., chosen].sum(-1, keepdims=True)
    return np.concatenate([counts, pooled], axis=-1).astype(np.float64)


def _row(
    group: str,
    name: str,
    rate: float,
    flagged: Float64Array,
    pixels: Float64Array,
    weights: Float64Array,
) -> RateRow:
    """Make one row from per-image counts (n,) and bootstrap weights (R, n)."""
    observed, interval = observed_rate(flagged, pixels, weights)
    return RateRow(
        group=group,
        class_name=name,
        target=rate,
        observed=observed,
        interval=interval,
        pixels=int(pixels.sum()),
        images=int(np.count_nonzero(pixels)),
        kept=rate / FACTOR <= observed <= rate * FACTOR,
    )
