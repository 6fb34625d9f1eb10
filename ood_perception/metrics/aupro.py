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

from dataclasses import replace

import cv2
import numpy as np

from ..errors import ConfigError, DataError
from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from .binning import UNDEFINED, Bounded
from .pixel import Curve, ScoredImage, fraction, pixel_metrics, scored_image

FPR_LIMIT = 0.3


def region_image(
    scores: Float32Array, labels: UInt8Array, roi: BoolArray | None = None, smallest: int = 1
) -> ScoredImage:
    """
    Split one image by its labels; each anomaly pixel weighs 1 / size of its true component.

    scores, labels, roi: see pixel.scored_image; a component that is cut by roi keeps the weight
    of the part inside. smallest: see component_shares.
    """
    split = scored_image(scores, labels, roi)
    anomaly = labels == 1
    shares, components = component_shares(anomaly, smallest)
    values = scores[anomaly].astype(np.float32)
    if roi is not None:
        inside = roi[anomaly]
        values, shares = values[inside], shares[inside]
    order = np.argsort(values, kind='stable')
    return replace(split, weights=shares[order], components=components)


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


def aupro(
    curve: Curve, components: float | Float64Array, limit: float = FPR_LIMIT
) -> Float64Array:
    """
    Return the AUPRO (...) of a curve (..., K) with weights, in [0, 1].

    Exact for a full_curve of pooled images of one product. components: (...), their numbers.
    limit: largest FPR, in (0, 1] (else ConfigError). nan without anomalies or normal pixels.
    """
    _check_limit(limit)
    if curve.weights is None or curve.found.shape[-1] == 0:
        return np.full(curve.found.shape[:-1], np.nan)
    origin = np.zeros((*curve.found.shape[:-1], 1))
    false_positive_rate = np.concatenate([origin, curve.false_positive_rate], axis=-1)
    height = np.concatenate([origin, fraction(curve.weights, components)], axis=-1)
    left, right = false_positive_rate[..., :-1], false_positive_rate[..., 1:]
    low, high = height[..., :-1], height[..., 1:]
    width = np.clip(right, None, limit) - np.clip(left, None, limit)
    with np.errstate(invalid='ignore', divide='ignore'):
        part = np.where(right > left, width / (right - left), 0.0)
    areas = np.sum(width * (low + 0.5 * part * (high - low)), axis=-1) / limit
    return np.where(curve.weights[..., -1] > 0, areas, np.nan)


def _check_limit(limit: float) -> None:
    if not 0.0 < limit <= 1.0:
        raise ConfigError(f'the FPR limit {limit} of AUPRO must lie between 0 and 1')


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
    false_positive_rate = np.cumsum(negatives[::-1]) / total
    start = np.concatenate([[0.0], false_positive_rate[:-1]])
    width = np.minimum(false_positive_rate, limit) - np.minimum(start, limit)
    after = np.cumsum(rises)
    low, high = np.sum(width * (after - rises)) / limit, np.sum(width * after) / limit
    part = np.divide(width, false_positive_rate - start, out=np.zeros_like(width), where=width > 0)
    value = np.sum(width * (after - rises + 0.5 * part * rises)) / limit
    return Bounded(float(value), float(low), float(high))


def image_auroc(
    scores: Float64Array, anomalous: UInt8Array, weights: Float64Array | None = None
) -> Float64Array:
    """
    Return the AUROC of whole images, (R,), a tie counting half.

    scores: float (n,), one per image: the maximum of its map, unless a paper says otherwise.
    anomalous: (n,), 1 anomalous, 0 normal. weights: float64 (R, n), default each image once.
    nan where no image, or every image, is anomalous.
    """
    if scores.shape != anomalous.shape or np.isnan(scores).any():
        raise DataError(
            f'{scores.shape} image scores (NaN: {int(np.isnan(scores).sum())}) and '
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
