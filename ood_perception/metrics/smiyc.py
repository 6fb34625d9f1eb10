# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
SegmentMeIfYouCan: the leaderboard's pixel metrics, and sIoU, PPV and F1 of connected components.

The pixel metrics come from an approximated curve: every frame is histogrammed with edges of its
own (384 quantiles of its anomaly pixels and 384 of its normal ones), and the lower edges of all
frames together are the thresholds. Exact values come from pixel.py; these are for comparison with
the leaderboard since August 2023. They differ most when frames hold no anomaly or few anomaly
pixels, and when scores are saturated: if frames share their highest threshold, the first point of
the curve holds the pixels of one frame only, which one depends on the (unstable) sort, and the
value depends on the order of the frames.

Source: Chan et al., SegmentMeIfYouCan (NeurIPS 2021 data sets), section 3 (components), and the
benchmark's evaluator (github.com/SegmentMeIfYouCan/road-anomaly-benchmark, 1c7804e).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from .pixel import Curve, PixelMetrics, ScoredImage, pixel_metrics

QUANTILES = 384
METRICS = ('average_precision', 'fpr95', 'auroc', 'best_f1')  # what the leaderboard shows


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


def smiyc_frame(image: ScoredImage, float16: bool = False) -> SmiycFrame:
    """Histogram an image, as float16 like the benchmark's if asked; DataError for infinity."""
    kind: type[np.floating[Any]] = np.float16 if float16 else np.float32
    with np.errstate(over='ignore'):
        positives = image.positives.astype(kind)
        negatives = image.negatives.astype(kind)
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


TAUS: Float64Array = np.linspace(0.25, 0.75, 11)


@dataclass(frozen=True)
class SizeLimits:
    """
    What is too small to count, in pixels.

    predicted: predicted components below it are removed.
    true: ground-truth components below it are ignored, for predictions too.
    """

    predicted: int
    true: int


SIZE_LIMITS = {
    'anomaly_track': SizeLimits(predicted=500, true=100),
    'obstacle_track': SizeLimits(predicted=50, true=10),
    'lost_and_found': SizeLimits(predicted=50, true=10),
    'none': SizeLimits(predicted=1, true=1),
}


def size_limits(track: str) -> SizeLimits:
    """Return the limits of a track by name; ConfigError for an unknown one."""
    if track not in SIZE_LIMITS:
        raise ConfigError(f'unknown track {track!r}; known are {[*SIZE_LIMITS]}')
    return SIZE_LIMITS[track]


@dataclass(frozen=True)
class FrameComponents:
    """
    The components of one frame.

    siou: float64 (g,), of each ground-truth component, in [0, 1].
    ppv: float64 (p,), of each predicted component: share of its pixels on any ground truth.
    """

    siou: Float64Array
    ppv: Float64Array


def predicted_mask(scores: Float32Array, threshold: float, strict: bool = True) -> BoolArray:
    """
    Return what a threshold flags.

    strict: score > threshold, as the benchmark does with a threshold whose curve meant >=. Where
    many pixels share the threshold's score (rounded or saturated ones) they are all lost so, and
    strict=False (score >= threshold) gives what the curve says.
    """
    if np.isnan(scores).any():
        raise DataError(
            f'{int(np.isnan(scores).sum())} scores are NaN; give unscored pixels the lowest score '
            'or label them as ignored and hand in a finite score'
        )
    return scores > threshold if strict else scores >= threshold


def frame_components(mask: BoolArray, labels: UInt8Array, limits: SizeLimits) -> FrameComponents:
    """
    Compare the predicted with the true components of one frame.

    mask: bool (H, W), the prediction. labels: uint8 (H, W), 1 anomaly, 0 normal, others ignored.
    The steps and their order are the benchmark's: predictions leave ignored pixels, small
    predictions are removed, then small true components are ignored, by which a prediction can lose
    pixels after its size was tested. Raises DataError for unequal shapes.
    """
    if mask.shape != labels.shape:
        raise DataError(
            f'mask {mask.shape} and labels {labels.shape} differ in size; resize to the labels'
        )
    predicted = _components(mask & (labels <= 1), limits.predicted)
    anomaly = labels == 1
    true = _components(anomaly, limits.true)
    inside = (labels == 0) | (true > 0)
    return _compare(true[inside], predicted[inside])


def _components(mask: BoolArray, smallest: int) -> npt.NDArray[np.int32]:
    """Number the 8-connected components with at least `smallest` pixels 1, 2, ...; 0 elsewhere."""
    _, numbers, statistics, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    kept = statistics[:, cv2.CC_STAT_AREA] >= smallest
    kept[0] = False
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    result: npt.NDArray[np.int32] = renumbered[numbers]
    return result


def _compare(true: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32]) -> FrameComponents:
    """Evaluate component numbers (N,) of the pixels inside the region of interest."""
    rows, columns = int(true.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1
    shared = np.bincount(true.astype(np.int64) * columns + predicted, minlength=rows * columns)
    shared = shared.reshape(rows, columns)
    sizes = shared.sum(axis=0)[1:]
    on_truth = shared[1:, 1:].sum(axis=0)
    with np.errstate(invalid='ignore'):
        ppv = on_truth / sizes
    touching = shared[1:, 1:] > 0
    covered = shared[1:, 1:].sum(axis=1)
    # |K| + |k| - I - A of the paper, where A = pixels of K on other true components.
    union = touching @ (sizes - on_truth) + shared[1:].sum(axis=1)
    return FrameComponents(covered / union, ppv[sizes > 0])


def component_metrics(frames: Sequence[FrameComponents]) -> dict[str, float]:
    """
    Return the metrics of a set of frames by name.

    siou, ppv: means over all true and over all predicted components; nan without any.
    f1_0.25 ... f1_0.75: F1 per tau of TAUS, counted over the whole set; nan where nothing is to be
    found and nothing was predicted. mean_f1: their mean, the benchmark's F1*.
    """
    samples = component_samples(frames, np.ones((1, len(frames))))
    return {name: float(values[0]) for name, values in samples.items()}


def component_counts(frames: Sequence[FrameComponents]) -> dict[str, int]:
    """Return the numbers of true and of predicted components, 'true' and 'predicted'."""
    return {'true': sum(f.siou.size for f in frames), 'predicted': sum(f.ppv.size for f in frames)}


def component_samples(
    frames: Sequence[FrameComponents], weights: Float64Array
) -> dict[str, Float64Array]:
    """
    Return component_metrics of R multisets of the frames, each float64 (R,).

    weights: float64 (R, n), how often each frame counts (bootstrap.resample_weights).
    """
    hits = _counts([f.siou for f in frames], above=True)
    misses = _counts([f.siou for f in frames], above=False)
    false = _counts([f.ppv for f in frames], above=False)
    found, missed, alarms = weights @ hits, weights @ misses, weights @ false
    with np.errstate(invalid='ignore'):
        f1 = 2 * found / (2 * found + missed + alarms)
    samples = {
        'siou': _mean([f.siou for f in frames], weights),
        'ppv': _mean([f.ppv for f in frames], weights),
        'mean_f1': f1.mean(axis=1),
    }
    return samples | {f'f1_{tau:.2f}': f1[:, k] for k, tau in enumerate(TAUS)}


def _counts(values: Sequence[Float64Array], above: bool) -> Int64Array:
    """Count (n, 11) values of each frame that reach each tau, or that do not."""
    rows = [(v[:, None] >= TAUS if above else v[:, None] < TAUS).sum(axis=0) for v in values]
    return np.array(rows, np.int64).reshape(len(values), TAUS.size)


def _mean(values: Sequence[Float64Array], weights: Float64Array) -> Float64Array:
    """Return the mean (R,) over all components of all drawn frames; nan without any."""
    with np.errstate(invalid='ignore'):
        means: Float64Array = (weights @ np.array([v.sum() for v in values])) / (
            weights @ np.array([float(v.size) for v in values])
        )
    return means
