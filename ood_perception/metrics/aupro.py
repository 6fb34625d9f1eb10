# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
AUPRO: the area under the per-region overlap, as MVTec AD defines it, and image-level AUROC.

At every threshold: FPR over all normal pixels of the set, and PRO, the mean over all 8-connected
true components of the share that is found. The area below PRO(FPR) is taken by the trapezoid rule
from FPR 0 to a limit (0.30), interpolated at the limit, and divided by it. Each product of MVTec
is evaluated apart; the mean over products is reported.

Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ConfigError, DataError
from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from .bounds import UNDEFINED, Bounded
from .pixel import Curve, ScoredPicture, full_curve, pixel_metrics, scored_picture

FPR_LIMIT = 0.3


@dataclass(frozen=True)
class RegionPicture:
    """
    One picture (or a pool): each anomaly pixel weighs 1 / size of its component.

    positives: float32 (P,) ascending, scores of anomaly pixels. shares: float64 (P,), weights.
    negatives: float32 (N,) ascending, scores of normal pixels. components: their number.
    """

    positives: Float32Array
    shares: Float64Array
    negatives: Float32Array
    components: int


def region_picture(
    scores: Float32Array, labels: UInt8Array, roi: BoolArray | None = None, smallest: int = 1
) -> RegionPicture:
    """
    Split one picture by its true components.

    scores: float32 (H, W), no NaN where scored. labels: uint8 (H, W), 1 anomaly, 0 normal, others
    ignored. roi: bool (H, W), pixels that count, None = all; a component that is cut by it keeps
    the weight of the part inside. smallest: see component_shares.
    Raises DataError for unequal shapes or NaN.
    """
    split = scored_picture(scores, labels, roi)
    anomaly = labels == 1
    shares, components = component_shares(anomaly, smallest)
    values = scores[anomaly].astype(np.float32)
    if roi is not None:
        inside = roi[anomaly]
        values, shares = values[inside], shares[inside]
    order = np.argsort(values, kind='stable')
    return RegionPicture(values[order], shares[order], split.negatives, components)


def component_shares(anomaly: BoolArray, smallest: int = 1) -> tuple[Float64Array, int]:
    """
    Return 1 / size of its 8-connected component for every anomaly pixel, and their number.

    anomaly: bool (H, W). smallest: components of fewer pixels weigh 0 and are not counted.
    float64 (P,) in the order of anomaly.ravel().
    """
    _, numbers, statistics, _ = cv2.connectedComponentsWithStats(
        anomaly.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    areas = statistics[:, cv2.CC_STAT_AREA]
    weights = np.where(areas >= smallest, 1.0 / np.maximum(areas, 1), 0.0)
    shares: Float64Array = weights[numbers[anomaly]]
    return shares, int(np.count_nonzero(areas[1:] >= smallest))


def pool_regions(pictures: Sequence[RegionPicture]) -> RegionPicture:
    """Pool the pictures of one product; memory: 12 bytes per anomaly pixel, 4 per normal one."""
    empty = np.empty(0, np.float32)
    positives = np.concatenate([empty, *(p.positives for p in pictures)])
    order = np.argsort(positives, kind='stable')
    shares = np.concatenate([np.empty(0), *(p.shares for p in pictures)])
    negatives = np.concatenate([empty, *(p.negatives for p in pictures)])
    negatives.sort()
    return RegionPicture(
        positives[order], shares[order], negatives, sum(p.components for p in pictures)
    )


def aupro(pixels: RegionPicture, limit: float = FPR_LIMIT) -> float:
    """
    Return the exact AUPRO of the pooled pictures of one product, in [0, 1].

    limit: largest FPR, in (0, 1] (else ConfigError). nan without anomalies or normal pixels.
    """
    _check_limit(limit)
    other = pixels.negatives.size
    if pixels.components == 0 or other == 0:
        return float('nan')
    scores, first = np.unique(pixels.positives, return_index=True)
    overlap = np.add.reduceat(pixels.shares, first)[::-1].cumsum() / pixels.components
    # Only at scores of anomalies PRO rises; before each, thresholds of normal pixels run level.
    before = (other - np.searchsorted(pixels.negatives, scores, 'right')[::-1]) / other
    at = (other - np.searchsorted(pixels.negatives, scores, 'left')[::-1]) / other
    fallout = np.concatenate([[0.0], np.stack([before, at], axis=1).ravel(), [1.0]])
    level = np.concatenate([[0.0], overlap[:-1]])
    height = np.concatenate([[0.0], np.stack([level, overlap], axis=1).ravel(), [overlap[-1]]])
    return float(_area(fallout[None], height[None], limit)[0])


def _check_limit(limit: float) -> None:
    if not 0.0 < limit <= 1.0:
        raise ConfigError(f'the FPR limit {limit} of AUPRO must lie between 0 and 1')


def _area(fallout: Float64Array, height: Float64Array, limit: float) -> Float64Array:
    """Integrate rows (R, K) of polylines from 0 to `limit` and divide by it."""
    left, right = fallout[:, :-1], fallout[:, 1:]
    low, high = height[:, :-1], height[:, 1:]
    width = np.clip(right, None, limit) - np.clip(left, None, limit)
    with np.errstate(invalid='ignore', divide='ignore'):
        part = np.where(right > left, width / (right - left), 0.0)
    areas: Float64Array = np.sum(width * (low + 0.5 * part * (high - low)), axis=1) / limit
    return areas


def bounded_aupro(
    shares: Float64Array, negatives: Int64Array, components: int, limit: float
) -> Bounded:
    """
    Return AUPRO of one product's bins, from the lowest score up.

    shares: float64 (M,), summed weights of the anomaly pixels. negatives: int64 (M,). components:
    number of true components. limit: largest FPR, in (0, 1], else ConfigError. In each bin the
    regions are found before the alarms, or after them.
    """
    _check_limit(limit)
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


def component_average_precision(pixels: RegionPicture) -> float:
    """
    Return the exact AP in which every true component weighs the same, whatever its size.

    pixels: pooled pictures (region_picture, pool_regions). Definition: pixel.component_precision.
    nan where no component counts.
    """
    scored = ScoredPicture(pixels.positives, pixels.negatives)
    metrics = pixel_metrics(full_curve(scored, pixels.shares))
    return float(metrics.component_average_precision)


@dataclass(frozen=True)
class RegionHistograms:
    """
    Per-picture histograms of one product, from which any multiset of its pictures follows.

    Bin j holds the scores in [edges[j], edges[j + 1]); the edges are scores of the pool, so that
    every point of the curve is exact and the line between two points is what is approximated.

    edges: float32 (M,). shares: float64 (n, M), summed weights of the anomaly pixels.
    negatives: int64 (n, M). components: int64 (n,).
    """

    edges: Float32Array
    shares: Float64Array
    negatives: Int64Array
    components: Int64Array

    def aupro(self, weights: Float64Array, limit: float = FPR_LIMIT) -> Float64Array:
        """Return AUPRO (R,) of R multisets; weights: float64 (R, n); nan where undefined."""
        _check_limit(limit)
        found = np.cumsum((weights @ self.shares)[:, ::-1], axis=1)
        alarms = np.cumsum((weights @ self.negatives)[:, ::-1], axis=1)
        with np.errstate(invalid='ignore', divide='ignore'):
            height = found / (weights @ self.components)[:, None]
            fallout = alarms / alarms[:, -1:]
        origin = np.zeros((len(weights), 1))
        areas = _area(np.hstack([origin, fallout]), np.hstack([origin, height]), limit)
        defined = (found[:, -1] > 0) & (alarms[:, -1] > 0)
        return np.where(defined, areas, np.nan)


def region_histograms(pictures: Sequence[RegionPicture], bins: int = 16384) -> RegionHistograms:
    """Bin pictures by quantiles of their pooled anomaly pixels (half) and normal ones (half)."""
    pooled = pool_regions(pictures)
    edges = [np.array([-np.inf], np.float32)]
    for scores in (pooled.positives, pooled.negatives):
        if scores.size:
            edges.append(scores[np.linspace(0, scores.size - 1, bins // 2 - 1).astype(np.int64)])
    cuts = np.unique(np.concatenate(edges))
    return RegionHistograms(
        cuts,
        np.stack([_binned(p.positives, p.shares, cuts) for p in pictures]),
        np.stack([_binned(p.negatives, None, cuts) for p in pictures]).astype(np.int64),
        np.array([p.components for p in pictures], np.int64),
    )


def _binned(
    scores: Float32Array, weights: Float64Array | None, edges: Float32Array
) -> Float64Array | Int64Array:
    places = np.searchsorted(edges, scores, 'right') - 1
    return np.bincount(places, weights, minlength=edges.size)


def mean_aupro(products: Mapping[str, RegionPicture], limit: float = FPR_LIMIT) -> float:
    """Return the mean AUPRO over products, as MVTec reports it; nan if one is undefined."""
    if not products:
        return float('nan')
    return float(np.mean([aupro(pixels, limit) for pixels in products.values()]))


def image_auroc(
    scores: Float64Array, anomalous: UInt8Array, weights: Float64Array | None = None
) -> Float64Array:
    """
    Return the AUROC of whole pictures, (R,), a tie counting half.

    scores: float (n,), one per picture: the maximum of its map, unless a paper says otherwise.
    anomalous: (n,), 1 anomalous, 0 normal. weights: float64 (R, n), default each picture once.
    nan where no picture, or every picture, is anomalous.
    """
    if scores.shape != anomalous.shape or np.isnan(scores).any():
        raise DataError(
            f'{scores.shape} picture scores (NaN: {int(np.isnan(scores).sum())}) and '
            f'{anomalous.shape} labels do not match'
        )
    if scores.size == 0:
        return np.full(1 if weights is None else len(weights), np.nan)
    times = np.ones((1, scores.size)) if weights is None else weights
    order = np.argsort(scores)[::-1]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan))
    drawn = times[:, order]
    truth = anomalous[order] == 1
    found = np.add.reduceat(drawn * truth, starts, axis=1).cumsum(axis=1)
    alarms = np.add.reduceat(drawn * ~truth, starts, axis=1).cumsum(axis=1)
    curve = Curve(scores[order][starts], found, alarms, found[:, -1], alarms[:, -1])
    return np.asarray(pixel_metrics(curve).auroc)
