# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Metrics of binned scores, each with the smallest and the largest value that the bins allow.

A bin keeps how many anomaly and normal pixels it holds, not their order. So each metric is given
as (value, low, high): value takes each bin as one tie, and the exact one lies between low and high
(up to rounding, 1e-12), because every order inside the bins does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..types import Float64Array, Int64Array
from .pixel import TRUE_POSITIVE_RATE, Curve, pixel_metrics


class Bounded(NamedTuple):
    """A metric of binned scores: low <= exact value <= high; value takes each bin as one tie."""

    value: float
    low: float
    high: float


UNDEFINED = Bounded(float('nan'), float('nan'), float('nan'))


@dataclass(frozen=True)
class BinnedMetrics:
    """
    Metrics of binned pixels, see pixel.PixelMetrics; undefined ones are nan throughout.

    best_f1: the largest F1 of all bin edges; a score between two edges may be better by what high
    says. best_f1_threshold: the edge that reaches best_f1.value, exactly.
    """

    average_precision: Bounded
    average_precision_missed: Bounded
    auroc: Bounded
    fpr95: Bounded
    best_f1: Bounded
    best_f1_threshold: float
    positives: int
    negatives: int
    missed: int
    component_average_precision: Bounded = UNDEFINED


def bounded_metrics(curve: Curve) -> BinnedMetrics:
    """Return the metrics of one curve (K,) whose points are the lower edges of bins."""
    counts = int(curve.positives), int(curve.negatives), int(curve.missed)
    if curve.positives == 0:
        return BinnedMetrics(
            UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, float('nan'), *counts
        )
    values = pixel_metrics(curve)
    low, high = _average_precision(curve)
    kept = counts[0] / (counts[0] + counts[2])
    defined = curve.negatives > 0
    return BinnedMetrics(
        Bounded(float(values.average_precision), low, high),
        Bounded(float(values.average_precision_missed), low * kept, high * kept),
        _auroc(curve) if defined else UNDEFINED,
        Bounded(float(values.fpr95), *_fpr95(curve)) if defined else UNDEFINED,
        Bounded(float(values.best_f1), float(values.best_f1), _highest_f1(curve)),
        float(values.best_f1_threshold),
        *counts,
        _components(curve, float(values.component_average_precision)),
    )


def _steps(counts: Int64Array | Float64Array) -> Float64Array:
    return np.diff(counts, prepend=0).astype(np.float64)


def _average_precision(curve: Curve) -> tuple[float, float]:
    """
    Bound AP: in each bin all anomalies tied above all normal pixels, or one by one below them.

    With T found before a bin of p anomalies and c alarms up to its end, the low sum is
    sum_i (T + i) / (T + i + c) = p - c sum_i 1 / (T + c + i), and 1/x is convex, so that the last
    sum is at most ln((T + c + p + 1/2) / (T + c + 1/2)).
    """
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    before = curve.found - taken + curve.alarms
    low = taken - curve.alarms * np.log1p(taken / (before + 0.5))
    high = taken * (curve.found / np.maximum(curve.found + curve.alarms - wrong, 1))
    return float(np.sum(low) / curve.positives), float(np.sum(high) / curve.positives)


def _components(curve: Curve, value: float) -> Bounded:
    """
    Bound the component-averaged AP (pixel.component_precision) like AP.

    An order inside a bin sums w_i f(T + S_i) with S_i the weights taken so far and
    f(x) = x / (x + c), which rises: at least the integral of f over the bin,
    p - c ln((T + p + c) / (T + c)).
    """
    if curve.weights is None or curve.weights[-1] <= 0:
        return UNDEFINED
    found = curve.weights * (curve.positives / curve.weights[-1])
    taken = np.diff(found, prepend=0.0)
    before = found - taken + curve.alarms
    with np.errstate(divide='ignore', invalid='ignore'):
        lost = np.where(curve.alarms > 0, curve.alarms * np.log1p(taken / before), 0.0)
        high = np.where(
            taken > 0, taken * found / (found + curve.alarms - _steps(curve.alarms)), 0.0
        )
    low = float(np.sum(taken - lost) / curve.positives)
    return Bounded(value, low, float(np.sum(high) / curve.positives))


def _auroc(curve: Curve) -> Bounded:
    """Bound AUROC: the pairs inside bins are all lost, or all won; a tie counts half."""
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    pairs = float(curve.positives) * curve.negatives
    low = float(np.sum(taken * (curve.negatives - curve.alarms)) / pairs)
    inside = float(np.sum(taken * wrong) / pairs)
    return Bounded(low + 0.5 * inside, low, low + inside)


def _fpr95(curve: Curve) -> tuple[float, float]:
    """Bound FPR95: the threshold lies in the first bin that ends with a recall of 0.95."""
    first = int(np.argmax(curve.recall >= TRUE_POSITIVE_RATE))
    rates = curve.false_positive_rate
    return float(rates[first - 1]) if first else 0.0, float(rates[first])


def _highest_f1(curve: Curve) -> float:
    """Bound F1 from above: inside a bin at best its anomalies come first."""
    before = curve.alarms - _steps(curve.alarms)
    return float(np.max(2 * curve.found / (curve.found + before + curve.positives)))
