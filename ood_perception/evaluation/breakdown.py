# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a set's record shows beside its metrics: objects by size and place, false alarms by place and
rate, and curves and histograms of binned scores with few enough points to keep and to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from ood_perception.image.geometry import to_camera_nearest
from ood_perception.metrics.binning import lower_edges
from ood_perception.postprocess.mask import surprisal_threshold

from ..types import BoolArray, Detection, Float64Array, Int64Array, JsonDict, UInt8Array
from .record import Arrays

FOUND_SHARE = 0.5
# False-alarm rates at which promised and observed are compared.
CURVE_RATES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Sizes of objects in patches of the network; a patch is what the backbone sees as one token.
PATCH_BINS = (1.0, 4.0, 16.0)
SIZE_NAMES = ('under 1 patch', '1 to 4 patches', '4 to 16 patches', 'over 16 patches')
PLACE_NAMES = ('top third (far)', 'middle third', 'bottom third (near)')
CURVE_POINTS = 160
_HISTOGRAM = np.concatenate([np.arange(0, 6.01, 0.1), [np.inf]])


def objects_of(labels: UInt8Array, flagged: BoolArray, scored: BoolArray) -> Arrays:
    """
    Measure every object of one picture: each 8-connected component of label 1.

    labels: uint8 (H, W). flagged, scored: bool (H, W), as the node publishes them.
    Returns 'objects' float64 (k, 4): pixels; lowest row as a share of the height, 0..1; share of
    its pixels flagged; share inside the region of interest.
    """
    anomaly = (labels == 1).view(np.uint8)
    x, y, width, height = cv2.boundingRect(anomaly)
    if width == 0:
        return {'objects': np.zeros((0, 4))}
    box = (slice(y, y + height), slice(x, x + width))
    count, ids, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(anomaly[box]), connectivity=8
    )
    area = np.maximum(stats[:, cv2.CC_STAT_AREA], 1).astype(np.float64)
    lowest = y + stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT]
    shares = [np.bincount(ids[of[box]], minlength=count) / area for of in (flagged, scored)]
    rows = np.stack([area, lowest / labels.shape[0], *shares], axis=1)
    return {'objects': rows[1:]}  # component 0 is everything else


def places_of(labels: UInt8Array, flagged: BoolArray, scored: BoolArray) -> Arrays:
    """Count 'places' int64 (3, 2), top third first: normal pixels scored, those flagged."""
    height = labels.shape[0]
    cuts = [0, round(height / 3), round(2 * height / 3), height]
    normal = (labels == 0) & scored
    wrong = normal & flagged
    counts = [
        [np.count_nonzero(normal[a:b]), np.count_nonzero(wrong[a:b])] for a, b in pairwise(cuts)
    ]
    return {'places': np.array(counts, np.int64)}


def alarms_of(
    detection: Detection,
    labels: UInt8Array,
    classes: int,
    inside: BoolArray | None = None,
    rates: Sequence[float] = CURVE_RATES,
) -> Arrays:
    """
    Count flagged pixels per rate and true class, on the mask's own grid repeated to label size.

    labels: uint8 (H, W), class ids; ids >= classes are left out. inside: bool (H, W), pixels that
    count, None = all. The same numbers as false_alarm_rate.count_alarms, but each cell of the
    grid is compared with the thresholds once instead of each pixel.
    Returns 'flagged' int64 (R, C) and 'pixels' int64 (C,).
    """
    thresholds = np.array(sorted(surprisal_threshold(rate) for rate in rates), np.float32)
    passed = np.searchsorted(thresholds, detection.surprisal, 'right').astype(np.uint16)
    code = to_camera_nearest(passed, detection.geometry) * np.uint16(256) + labels
    chosen = code.ravel() if inside is None else code[inside]
    levels = len(thresholds) + 1
    counts = np.bincount(chosen, minlength=256 * levels).reshape(levels, 256)[:, :classes]
    at_least = np.cumsum(counts[::-1], axis=0)[::-1]  # row k: at least k thresholds passed
    order = np.argsort(np.argsort([surprisal_threshold(rate) for rate in rates]))
    return {
        'flagged': at_least[1:][order].astype(np.int64),
        'pixels': at_least[0].astype(np.int64),
    }


def object_table(objects: Float64Array, patch_area: Float64Array) -> JsonDict:
    """
    Return found objects by size and by place.

    objects: float64 (k, 4) of objects_of. patch_area: float64 (k,), camera pixels of one patch.
    Returns {'all' | 'size' | 'place': rows}, a row {'name', 'objects', 'found', 'flagged'}:
    found counts objects of which FOUND_SHARE is flagged, flagged is their mean flagged share.
    """
    sizes = np.digitize(objects[:, 0] / patch_area, PATCH_BINS)
    places = np.clip((objects[:, 1] * 3 - 1e-9).astype(int), 0, 2)
    return {
        'all': [_object_row('all', objects)],
        'size': [_object_row(n, objects[sizes == i]) for i, n in enumerate(SIZE_NAMES)],
        'place': [_object_row(n, objects[places == i]) for i, n in enumerate(PLACE_NAMES)],
    }


def _object_row(name: str, objects: Float64Array) -> JsonDict:
    count = len(objects)
    return {
        'name': name,
        'objects': count,
        'found': int(np.count_nonzero(objects[:, 2] >= FOUND_SHARE)),
        'flagged': float(objects[:, 2].mean()) if count else None,
        'inside': float(objects[:, 3].mean()) if count else None,
    }


def place_table(places: Int64Array) -> list[JsonDict]:
    """Return false alarms by place; places: int64 (3, 2), summed over pictures."""
    return [
        {'name': name, 'pixels': int(scored), 'flagged': int(wrong) / scored if scored else None}
        for name, (scored, wrong) in zip(PLACE_NAMES, places.tolist(), strict=True)
    ]


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
