# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The pixel metrics as the SegmentMeIfYouCan leaderboard computes them: an approximated curve. Its
component metrics (sIoU, PPV, F1) are in components.py.

Every frame is histogrammed with edges of its own (384 quantiles of its anomaly pixels and 384 of
its normal ones), and the lower edges of all frames together are the thresholds. Exact values come
from pixel.py; these are for comparison with the leaderboard since August 2023. They
differ most when frames hold no anomaly or few anomaly pixels, and when scores are saturated: if
frames share their highest threshold, the first point of the curve holds the pixels of one frame
only, which one depends on the (unstable) sort, and the value depends on the order of the frames.

Source: the benchmark's evaluator (github.com/SegmentMeIfYouCan/road-anomaly-benchmark, 1c7804e).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import Float64Array, Int64Array
from .pixel import Curve, PixelMetrics, ScoredPicture, pixel_metrics

QUANTILES = 384


@dataclass(frozen=True)
class SmiycFrame:
    """
    One frame's histogram; empty for a frame whose pixels are all ignored.

    thresholds: float64 (M,), lower edges of the bins, descending.
    found, alarms: int64 (M,), anomaly and normal pixels of each bin (not cumulated).
    """

    thresholds: Float64Array
    found: Int64Array
    alarms: Int64Array


METRICS = ('average_precision', 'fpr95', 'auroc', 'best_f1')
"""What the leaderboard shows."""


def smiyc_frame(picture: ScoredPicture, float16: bool = False) -> SmiycFrame:
    """
    Histogram one picture.

    float16: round the scores to float16 first, as the benchmark does when it stores them.
    Raises DataError for infinite scores (also those that float16 cannot hold).
    """
    kind: type[np.floating[Any]] = np.float16 if float16 else np.float32
    with np.errstate(over='ignore'):
        positives = picture.positives.astype(kind)
        negatives = picture.negatives.astype(kind)
    if positives.size + negatives.size == 0:
        nothing = np.empty(0, np.int64)
        return SmiycFrame(np.empty(0), nothing, nothing)
    edges = _edges(positives, negatives)
    return SmiycFrame(
        edges[:-1][::-1].astype(np.float64),
        _histogram(positives, edges),
        _histogram(negatives, edges),
    )


def _edges(
    positives: npt.NDArray[np.floating[Any]], negatives: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.floating[Any]]:
    """Return the frame's ascending edges; scores ascending, in the precision that they keep."""
    ends = [part[[0, -1]] for part in (positives, negatives) if part.size]
    low, high = np.min(ends), np.max(ends)
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataError(
            f'scores from {low} to {high} cannot be histogrammed as {positives.dtype}; '
            'hand in finite scores that the precision holds'
        )
    margin = np.maximum((high - low) * 1e-2, 1e-2)
    parts = [np.array([low - margin, high + margin])]
    parts += [
        np.quantile(part, np.linspace(0, 1, min(QUANTILES, part.size)))
        for part in (positives, negatives)
        if part.size
    ]
    edges = np.unique(np.concatenate(parts))
    if edges.size < 2:
        raise DataError(f'all scores are {low} and {edges.dtype} has no room for a bin around it')
    return edges


def _histogram(
    scores: npt.NDArray[np.floating[Any]], edges: npt.NDArray[np.floating[Any]]
) -> Int64Array:
    """Count ascending scores per bin, highest bin first; the highest is closed on both sides."""
    below = np.searchsorted(scores, edges, 'left')
    below[-1] = np.searchsorted(scores, edges[-1], 'right')
    counts: Int64Array = np.diff(below)[::-1].astype(np.int64)
    return counts


def _merge(frames: Sequence[SmiycFrame]) -> list[Float64Array]:
    """
    Return thresholds, found, alarms and number of the frame of all frames' bins, (K,) each.

    Sorted as the benchmark does: numpy's default (unstable) order, reversed.
    """
    columns = [
        np.stack([f.thresholds, f.found, f.alarms, np.full(len(f.found), i)])
        for i, f in enumerate(frames)
    ]
    merged = np.concatenate([np.empty((4, 0)), *columns], axis=1)
    return list(merged[:, np.argsort(merged[0])[::-1]])


def smiyc_metrics(frames: Sequence[SmiycFrame]) -> PixelMetrics:
    """
    Return the metrics of frames in the order of the data set; nan where no pixel is anomalous.

    best_f1_threshold: as the leaderboard hands it to the component metrics, which flag score > it.
    """
    return _metrics(_merge(frames), np.ones(len(frames)))


def smiyc_samples(frames: Sequence[SmiycFrame], weights: Float64Array) -> dict[str, Float64Array]:
    """Return each of METRICS of R multisets of the frames, (R,); weights: float64 (R, n)."""
    merged = _merge(frames)
    rows = [_metrics(merged, row) for row in weights]
    return {name: np.array([getattr(row, name) for row in rows]) for name in METRICS}


def _metrics(merged: Sequence[Float64Array], weights: Float64Array) -> PixelMetrics:
    """Evaluate the merged curve with each frame counted `weights` (n,) times."""
    thresholds, found, alarms, frame = merged
    times = weights[frame.astype(np.intp)]
    found, alarms = np.cumsum(found * times), np.cumsum(alarms * times)
    if found.size == 0:
        return pixel_metrics(Curve(found, found, alarms, positives=0.0, negatives=0.0))
    # The last of each run of equal thresholds, and always the very first entry.
    kept = np.concatenate(
        [[0], np.flatnonzero(thresholds[:-1] != thresholds[1:]), [thresholds.size - 1]]
    )
    found, alarms, thresholds = found[kept], alarms[kept], thresholds[kept]
    totals = found[-1], alarms[-1]
    if found[0] != 0 or alarms[0] != 0:
        found, alarms = np.append(0.0, found), np.append(0.0, alarms)
        thresholds = np.append(thresholds.max() + 1, thresholds)
    return pixel_metrics(
        Curve(thresholds, found, alarms, positives=totals[0], negatives=totals[1])
    )
