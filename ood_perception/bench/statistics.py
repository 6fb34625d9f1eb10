# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Percentiles of times, and ratios of times that were measured in turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PERCENTILES = (5, 50, 95, 99)


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """Return p5, p50, p95 and p99 of (N,) values, N >= 1."""
    return {f'p{p}': float(np.percentile(np.asarray(values), p)) for p in PERCENTILES}


def ratio(
    numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]
) -> dict[str, float]:
    """
    Return the ratio of two things measured in the same rounds: median, least, greatest.

    numerators, denominators: per round the times; of each round the medians are compared, so
    that what slows a whole round down cancels.
    """
    rounds = [
        float(np.median(a) / np.median(b)) for a, b in zip(numerators, denominators, strict=True)
    ]
    return {'median': float(np.median(rounds)), 'least': min(rounds), 'greatest': max(rounds)}
