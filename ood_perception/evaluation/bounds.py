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

from ..errors import ConfigError
from .curves import Curve
from .histograms import TRUE_POSITIVE_RATE, Float64Array, Int64Array, component_precision


class Bounded(NamedTuple):
    """A metric of binned scores: low <= exact value <= high; value takes each bin as one tie."""

    value: float
    low: float
    high: float


UNDEFINED = Bounded(float('nan'), float('nan'), float('nan'))


@dataclass(frozen=True)
class BinnedMetrics:
    """
    Metrics of binned pixels, see metrics.PixelMetrics; undefined ones are nan throughout.

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


def bounded_metrics(
    curve: Curve, missed: int = 0, shares: Float64Array | None = None
) -> BinnedMetrics:
    """
    Return the metrics of a curve whose points are the lower edges of bins.

    missed: anomaly pixels outside the region of interest. shares: float64 (K,), the cumulated
    weights of the anomaly pixels at the curve's points, None = no component-averaged AP.
    """
    if curve.positives == 0:
        nothing = (UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED)
        return BinnedMetrics(*nothing, float('nan'), 0, curve.negatives, missed)
    precision = _average_precision(curve)
    lost = curve.positives / (curve.positives + missed)
    best_f1, threshold = _best_f1(curve)
    defined = curve.negatives > 0
    return BinnedMetrics(
        average_precision=precision,
        average_precision_missed=Bounded(*(value * lost for value in precision)),
        auroc=_auroc(curve) if defined else UNDEFINED,
        fpr95=_fpr95(curve) if defined else UNDEFINED,
        best_f1=best_f1,
        best_f1_threshold=threshold,
        positives=curve.positives,
        negatives=curve.negatives,
        missed=missed,
        component_average_precision=UNDEFINED if shares is None else _components(curve, shares),
    )


def _steps(counts: Int64Array) -> Float64Array:
    return np.diff(counts, prepend=0).astype(np.float64)


def _average_precision(curve: Curve) -> Bounded:
    """
    Bound AP: in each bin all anomalies tied above all normal pixels, or one by one below them.

    With T found before a bin of p anomalies and c alarms up to its end, the low sum is
    sum_i (T + i) / (T + i + c) = p - c sum_i 1 / (T + c + i), and 1/x is convex, so that the last
    sum is at most ln((T + c + p + 1/2) / (T + c + 1/2)).
    """
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    count = curve.positives
    before = curve.found - taken + curve.alarms
    low = taken - curve.alarms * np.log1p(taken / (before + 0.5))
    high = taken * (curve.found / np.maximum(curve.found + curve.alarms - wrong, 1))
    value = float(np.sum(taken * curve.precision)) / count
    return Bounded(value, float(np.sum(low)) / count, float(np.sum(high)) / count)


def _components(curve: Curve, shares: Float64Array) -> Bounded:
    """
    Bound the component-averaged AP (histograms.component_precision) like AP.

    An order inside a bin sums w_i f(T + S_i) with S_i the weights taken so far and
    f(x) = x / (x + c), which rises: at least the integral of f over the bin,
    p - c ln((T + p + c) / (T + c)).
    """
    if shares[-1] <= 0:
        return UNDEFINED
    found = shares * (curve.positives / shares[-1])
    taken = np.diff(found, prepend=0.0)
    before = found - taken + curve.alarms
    with np.errstate(divide='ignore', invalid='ignore'):
        lost = np.where(curve.alarms > 0, curve.alarms * np.log1p(taken / before), 0.0)
        high = np.where(
            taken > 0, taken * found / (found + curve.alarms - _steps(curve.alarms)), 0.0
        )
    count = np.array([float(curve.positives)])
    value = component_precision(shares[None], curve.alarms[None].astype(np.float64), count)
    low = float(np.sum(taken - lost)) / curve.positives
    return Bounded(float(value[0]), low, float(np.sum(high)) / curve.positives)


def _auroc(curve: Curve) -> Bounded:
    """Bound AUROC: the pairs inside bins are all lost, or all won; a tie counts half."""
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    pairs = float(curve.positives) * curve.negatives
    low = float(np.sum(taken * (curve.negatives - curve.alarms))) / pairs
    inside = float(np.sum(taken * wrong)) / pairs
    return Bounded(low + 0.5 * inside, low, low + inside)


def _fpr95(curve: Curve) -> Bounded:
    """Bound FPR95: the threshold lies in the first bin that ends with a recall of 0.95."""
    first = int(np.argmax(curve.recall >= TRUE_POSITIVE_RATE))
    high = float(curve.fallout[first])
    low = float(curve.fallout[first - 1]) if first else 0.0
    return Bounded(high, low, high)


def _best_f1(curve: Curve) -> tuple[Bounded, float]:
    """Bound F1: the best edge is reached; inside a bin at best its anomalies come first."""
    at_edges = 2 * curve.found / (curve.found + curve.alarms + curve.positives)
    before = curve.alarms - _steps(curve.alarms)
    high = 2 * curve.found / (curve.found + before + curve.positives)
    best = int(np.argmax(at_edges))
    value = float(at_edges[best])
    return Bounded(value, value, float(high.max())), float(curve.thresholds[best])


def bounded_aupro(
    shares: Float64Array, negatives: Int64Array, components: int, limit: float
) -> Bounded:
    """
    Return AUPRO (aupro.py) of one product's bins, from the lowest score up.

    shares: float64 (M,), summed weights of the anomaly pixels. negatives: int64 (M,). components:
    number of true components. limit: largest FPR, in (0, 1], else ConfigError. In each bin the
    regions are found before the alarms, or after them.
    """
    if not 0.0 < limit <= 1.0:
        raise ConfigError(f'the FPR limit {limit} of AUPRO must lie between 0 and 1')
    total = int(negatives.sum())
    if components == 0 or total == 0:
        return UNDEFINED
    rises = shares[::-1] / components
    fallout = np.cumsum(negatives[::-1]) / total
    start = np.concatenate([[0.0], fallout[:-1]])
    width = np.minimum(fallout, limit) - np.minimum(start, limit)
    after = np.cumsum(rises)
    low, high = np.sum(width * (after - rises)) / limit, np.sum(width * after) / limit
    part = np.divide(width, fallout - start, out=np.zeros_like(width), where=width > 0)
    value = np.sum(width * (after - rises + 0.5 * part * rises)) / limit
    return Bounded(float(value), float(low), float(high))
