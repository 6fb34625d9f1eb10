# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Curves and histograms of binned scores with few enough points to keep and to draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ood_perception.metrics.binning import lower_edges

from ..types import JsonDict

CURVE_POINTS = 160
_HISTOGRAM = np.concatenate([np.arange(0, 6.01, 0.1), [np.inf]])

Int64Array = npt.NDArray[np.int64]


def curve_points(positives: Int64Array, negatives: Int64Array) -> JsonDict:
    """Return at most 2 CURVE_POINTS points of the curve, from the highest score down."""
    found = np.cumsum(positives[::-1])
    alarms = np.cumsum(negatives[::-1])
    chosen = []
    for total in (found, alarms):
        if total[-1]:
            # Evenly spaced, and evenly in the logarithm: both ends of a ROC can be looked at.
            ranks = np.concatenate([
                np.linspace(1, int(total[-1]), CURVE_POINTS // 2),
                np.geomspace(1, int(total[-1]), CURVE_POINTS // 2),
            ])  # fmt: skip
            chosen.append(np.searchsorted(total, ranks))
    places = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    edges = lower_edges()[::-1][places]
    return {
        'threshold': [round(float(max(edge, 0.0)), 6) for edge in edges],
        'recall': _rounded(found[places], found[-1]),
        'fallout': _rounded(alarms[places], alarms[-1]),
        'precision': _rounded(found[places], found[places] + alarms[places]),
    }


def _rounded(part: Int64Array, total: Int64Array | int) -> list[float]:
    return [round(float(v), 7) for v in part / np.maximum(total, 1)]


def score_histogram(positives: Int64Array, negatives: Int64Array) -> JsonDict:
    """Return the share of pixels per tenth of surprisal, 0 to 6; the last bin is all above."""
    edges = np.maximum(lower_edges(), 0)
    at = np.clip(np.searchsorted(_HISTOGRAM, edges + 1e-6, 'right') - 1, 0, len(_HISTOGRAM) - 2)
    result: JsonDict = {'from': [round(float(v), 1) for v in _HISTOGRAM[:-1]]}
    for name, counts in (('anomaly', positives), ('normal', negatives)):
        sums = np.bincount(at, weights=counts, minlength=len(_HISTOGRAM) - 1)
        result[name] = [round(float(v), 8) for v in sums / max(1, int(counts.sum()))]
    return result
