# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Counts per score in bins that never change: constant memory, mergeable, with a bound on the error.

A bin holds the surprisals that agree in the leading bits of their float32: below 2^-10 all fall
into bin 0, above that a bin is 1/4096 of its lower edge wide, up to 64. Bins keep the order of the
scores, so pictures, processes and runs share them, and only the order inside a bin is lost: what
that can change is returned with every metric (bounds.py). They are the leading bits of the float
itself, few enough to be counted in one pass over a picture's pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from .bounds import BinnedMetrics, bounded_metrics
from .pixel import Curve

BINS = 1 << 16
_SHIFT = 11  # sign, exponent and 12 of the 23 bits of the mantissa are kept
_FIRST = int(np.float32(2.0**-10).view(np.int32)) >> _SHIFT

Int32Array = npt.NDArray[np.int32]


def bin_of(scores: Float32Array) -> Int32Array:
    """
    Return the bin of each score, int32 0..BINS-1, same shape.

    scores: float32, C-contiguous, no NaN. A negative score falls into bin 0, too.
    """
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


def share_sums(
    scores: Float32Array, anomaly: BoolArray, inside: BoolArray, shares: Float64Array
) -> Float64Array:
    """
    Sum the weights of a picture's anomaly pixels by place and bin.

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
