# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Counts per score in bins that never change: constant memory, mergeable, with a bound on the error.

A bin holds the surprisals that agree in the leading bits of their float32: below 2^-10 all fall
into bin 0, above that a bin is 1/4096 of its lower edge wide, up to 64. Bins keep the order of the
scores, so images, processes and runs share them, and only the order inside a bin is lost: what
that can change is returned with every metric as (value, low, high): value takes each bin as one
tie, the exact one lies between low and high (up to rounding, 1e-12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from .pixel import TRUE_POSITIVE_RATE, Curve, pixel_metrics, steps

BINS = 1 << 16
_SHIFT = 11  # sign, exponent and 12 of the 23 bits of the mantissa are kept
_FIRST = int(np.float32(2.0**-10).view(np.int32)) >> _SHIFT

Int32Array = npt.NDArray[np.int32]


def bin_of(scores: Float32Array) -> Int32Array:
    """Return the bin, int32, of each float32 score (contiguous, no NaN); of negative ones 0."""
    bins: Int32Array = scores.view(np.int32) >> _SHIFT
    bins -= _FIRST
    np.clip(bins, 0, BINS - 1, out=bins)
    return bins


def lower_edges() -> Float32Array:
    """Return float32 (BINS,): a surprisal is in bin j or above exactly when it is >= edges[j]."""
    patterns = (np.arange(_FIRST, _FIRST + BINS) << _SHIFT).astype(np.int32)
    edges = patterns.view(np.float32)
    edges[0] = 0.0  # no surprisal is below, and a threshold must be a number
    return edges


def label_counts(scores: Float32Array, labels: UInt8Array, inside: BoolArray) -> Int64Array:
    """
    Count the pixels of an image by place, label and bin in one pass.

    scores: float32 (H, W). labels: uint8 (H, W), 0 normal, 1 anomaly, all others left out.
    inside: bool (H, W), the region of interest.
    Returns int64 (2, 2, BINS): [inside or not, anomaly or not, bin].
    """
    code = bin_of(np.ascontiguousarray(scores))
    code |= labels.astype(np.int32) << 16
    code |= inside.astype(np.int32) << 17
    valid = labels <= 1
    chosen = code.ravel() if valid.all() else code[valid]
    return np.bincount(chosen, minlength=4 * BINS).reshape(2, 2, BINS)


def share_sums(
    scores: Float32Array, anomaly: BoolArray, inside: BoolArray, shares: Float64Array
) -> Float64Array:
    """
    Sum the weights of an image's anomaly pixels by place and bin.

    scores: float32 (H, W). anomaly, inside: bool (H, W). shares: float64 (P,), see
    aupro.component_shares. Returns float64 (2, BINS): [inside or not, bin].
    """
    code = bin_of(np.ascontiguousarray(scores[anomaly]))
    code |= inside[anomaly].astype(np.int32) << 16
    sums: Float64Array = np.bincount(code, shares, minlength=2 * BINS).astype(np.float64)
    return sums.reshape(2, BINS)


def binned_metrics(
    positives: Int64Array,
    negatives: Int64Array,
    missed: int = 0,
    shares: Float64Array | None = None,
) -> BinnedMetrics:
    """
    Return the metrics of counts int64 (BINS,), and what the order inside bins can change.

    missed: anomaly pixels outside the region of interest. shares: float64 (BINS,), of share_sums,
    None = no component-averaged AP. nan without positives; AUROC and FPR95 without negatives, too.
    """
    return bounded_metrics(binned_curve(positives, negatives, missed, shares))


def binned_curve(
    positives: Int64Array,
    negatives: Int64Array,
    missed: int = 0,
    shares: Float64Array | None = None,
) -> Curve:
    """Return the exact curve at the edges of the bins that hold pixels; see binned_metrics."""
    held = np.flatnonzero(positives + negatives)[::-1]
    return Curve(
        lower_edges()[held],
        np.cumsum(positives[held]),
        np.cumsum(negatives[held]),
        int(positives.sum()),
        int(negatives.sum()),
        missed,
        None if shares is None else np.cumsum(shares[held]),
    )


def coarse_starts(positives: Int64Array, negatives: Int64Array, bins: int = 2048) -> Int64Array:
    """
    Return the first fine bins of at most `bins` coarse ones: quantiles of both pooled counts.

    int64 (M,), ascending, the first 0: what bootstrap samples need, whose spread is far wider than
    a coarse bin.
    """
    starts = [np.zeros(1, np.int64)]
    for counts in (positives, negatives):
        total = np.cumsum(counts)
        if total[-1]:
            ranks = np.linspace(1, int(total[-1]), bins // 2).astype(np.int64)
            starts.append(np.searchsorted(total, ranks))
    return np.unique(np.concatenate(starts))[:bins]


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
    average_precision_with_outside: Bounded
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
        Bounded(float(values.average_precision_with_outside), low * kept, high * kept),
        _auroc(curve) if defined else UNDEFINED,
        Bounded(float(values.fpr95), *_fpr95(curve)) if defined else UNDEFINED,
        Bounded(float(values.best_f1), float(values.best_f1), _highest_f1(curve)),
        float(values.best_f1_threshold),
        *counts,
        _components(curve, float(values.component_average_precision)),
    )


def _average_precision(curve: Curve) -> tuple[float, float]:
    """
    Bound AP: in each bin all anomalies tied above all normal pixels, or one by one below them.

    With T found before a bin of p anomalies and c alarms up to its end, the low sum is
    sum_i (T + i) / (T + i + c) = p - c sum_i 1 / (T + c + i), and 1/x is convex, so that the last
    sum is at most ln((T + c + p + 1/2) / (T + c + 1/2)).
    """
    taken, wrong = steps(curve.found), steps(curve.alarms)
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
            taken > 0, taken * found / (found + curve.alarms - steps(curve.alarms)), 0.0
        )
    low = float(np.sum(taken - lost) / curve.positives)
    return Bounded(value, low, float(np.sum(high) / curve.positives))


def _auroc(curve: Curve) -> Bounded:
    """Bound AUROC: the pairs inside bins are all lost, or all won; a tie counts half."""
    taken, wrong = steps(curve.found), steps(curve.alarms)
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
    before = curve.alarms - steps(curve.alarms)
    return float(np.max(2 * curve.found / (curve.found + before + curve.positives)))
