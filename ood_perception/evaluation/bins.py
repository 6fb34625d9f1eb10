# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Counts per score in bins that never change: constant memory, mergeable, with a bound on the error.

A bin holds the surprisals that agree in the leading bits of their float32: below 2^-10 all fall
into bin 0, above that a bin is 1/4096 of its lower edge wide, up to 64. Bins keep the order of the
scores, so pictures, processes and runs share them, and only the order inside a bin is lost. What
that can change follows from the counts themselves and is returned with every metric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import BoolArray, Float32Array, UInt8Array
from .metrics import TRUE_POSITIVE_RATE, PictureHistograms

BINS = 1 << 16
_SHIFT = 11  # keeps 12 of the 23 bits of the mantissa
_FIRST = int(np.float32(2.0**-10).view(np.int32)) >> _SHIFT

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def bin_of(scores: Float32Array) -> Int32Array:
    """Return the bin of each score, int32 0..BINS-1, same shape; scores: C-contiguous, no NaN."""
    bins: Int32Array = scores.view(np.int32) >> _SHIFT
    bins -= _FIRST
    np.clip(bins, 0, BINS - 1, out=bins)
    return bins


def lower_edges() -> Float32Array:
    """Return float32 (BINS,): a pixel is in bin j or above exactly when its score >= edges[j]."""
    bits = (np.arange(BINS, dtype=np.int32) + _FIRST) << _SHIFT
    edges: Float32Array = bits.view(np.float32).copy()
    edges[0] = -np.inf
    return edges


def label_counts(scores: Float32Array, labels: UInt8Array, inside: BoolArray) -> Int64Array:
    """
    Count the pixels of a picture by place, label and bin in one pass.

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


@dataclass(frozen=True)
class BinnedMetrics:
    """
    Metrics of pooled counts, each as (value, low, high): the exact one lies from low to high.

    average_precision, average_precision_missed, auroc, fpr95: as in PixelMetrics.
    best_f1: the largest F1 of all bin edges; it reaches its value, a score between edges may be
        better by what high says. threshold: the edge that gives it.
    """

    average_precision: tuple[float, float, float]
    average_precision_missed: tuple[float, float, float]
    auroc: tuple[float, float, float]
    fpr95: tuple[float, float, float]
    best_f1: tuple[float, float, float]
    threshold: float
    positives: int
    negatives: int
    missed: int


def binned_metrics(positives: Int64Array, negatives: Int64Array, missed: int = 0) -> BinnedMetrics:
    """
    Return the metrics of counts int64 (BINS,), and what the order inside bins can change.

    missed: anomaly pixels outside the region of interest. nan without positives; AUROC and FPR95
    without negatives, too.
    """
    count, other = int(positives.sum()), int(negatives.sum())
    if count == 0:
        none = (np.nan, np.nan, np.nan)
        return BinnedMetrics(none, none, none, none, none, np.nan, 0, other, missed)
    taken = positives[::-1].astype(np.float64)
    wrong = negatives[::-1].astype(np.float64)
    found, alarms = np.cumsum(taken), np.cumsum(wrong)
    precision = _precision_bounds(taken, wrong, found, alarms)
    lost = count / (count + missed)
    best, high, at = _best_f1(taken, found, alarms)
    return BinnedMetrics(
        average_precision=precision,
        average_precision_missed=(precision[0] * lost, precision[1] * lost, precision[2] * lost),
        auroc=_auroc_bounds(taken, wrong, alarms),
        fpr95=_fpr95_bounds(found, wrong, alarms),
        best_f1=(best, best, high),
        threshold=float(lower_edges()[BINS - 1 - at]),
        positives=count,
        negatives=other,
        missed=missed,
    )


def _precision_bounds(
    taken: Float64Array, wrong: Float64Array, found: Float64Array, alarms: Float64Array
) -> tuple[float, float, float]:
    """
    AP with every bin a tie, and its bounds.

    Precision grows with each positive and falls with each negative, so inside a bin no positive
    can have a higher one than the last with no negative of the bin before it, nor a lower one than
    the first with all of them before it.
    """
    share = taken / found[-1]
    full = taken > 0
    before = found - taken
    with np.errstate(invalid='ignore'):
        value = found / (found + alarms)
        high = found / (found + alarms - wrong)
        low = (before + 1) / (before + 1 + alarms)
    value_, low_, high_ = (float(np.sum((share * p)[full])) for p in (value, low, high))
    return value_, low_, high_


def _auroc_bounds(
    taken: Float64Array, wrong: Float64Array, alarms: Float64Array
) -> tuple[float, float, float]:
    """AUROC with ties counting half; the pairs inside bins decide the bounds."""
    other = alarms[-1]
    if other == 0:
        return np.nan, np.nan, np.nan
    below = other - alarms
    pairs = float(taken.sum() * other)
    half = 0.5 * float(np.sum(taken * wrong)) / pairs
    value = float(np.sum(taken * below)) / pairs + half
    return value, value - half, value + half


def _fpr95_bounds(
    found: Float64Array, wrong: Float64Array, alarms: Float64Array
) -> tuple[float, float, float]:
    """FPR at the first edge with a recall of 0.95; the exact threshold lies in that edge's bin."""
    if alarms[-1] == 0:
        return np.nan, np.nan, np.nan
    first = int(np.argmax(found >= TRUE_POSITIVE_RATE * found[-1]))
    value = float(alarms[first] / alarms[-1])
    return value, float((alarms[first] - wrong[first]) / alarms[-1]), value


def _best_f1(
    taken: Float64Array, found: Float64Array, alarms: Float64Array
) -> tuple[float, float, int]:
    """Return the best F1 of all edges, its bound from above, and where it is."""
    scores = 2 * found / (found + alarms + found[-1])
    before = np.concatenate([[0.0], alarms[:-1]])
    high = 2 * found / (found + before + found[-1])
    at = int(np.argmax(scores))
    return float(scores[at]), float(high.max()), at


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


def coarse_histograms(
    positives: Int64Array, negatives: Int64Array, missed: Int64Array, starts: Int64Array
) -> PictureHistograms:
    """Return per-picture counts (n, M) of coarse bins with their edges, for the bootstrap."""
    return PictureHistograms(lower_edges()[starts], positives, negatives, missed)
