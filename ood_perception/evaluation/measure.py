# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From one detection and its image's labels to what the metrics of a set need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from ..errors import DataError
from ..image.geometry import camera_window, to_camera, to_camera_nearest
from ..metrics.aupro import component_shares
from ..metrics.binning import label_counts, share_sums
from ..postprocess.mask import surprisal_threshold
from ..types import BoolArray, Detection, UInt8Array
from .class_labels import label_agreement
from .inspection import inspection_counts
from .maritime import Segments, maritime_counts
from .record import Arrays, pack_counts, pack_detection

IGNORED = 255
# False-alarm rates at which target and observed are compared.
CURVE_RATES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
ANOMALY, INSPECTION, CLOSED_SET, MARITIME = 'anomaly', 'inspection', 'closed-set', 'maritime'


@dataclass(frozen=True, eq=False)
class Measured:
    """
    How a set is measured.

    kind: ANOMALY and INSPECTION: labels 0 normal, 1 anomaly. CLOSED_SET: labels are class ids.
        MARITIME: labels are those of lars.py.
    whole: of ANOMALY: the labels are not the road alone, so the predicted region is measured
        apart, and false alarms are those inside it.
    classes: number of known classes whose observed rate is counted, 0 = none; labels: their ids.
    reject: id of the class that flagged pixels become in the final map, see class_labels.py; None
        = no final map is judged.
    sea: of MARITIME: uint8 (256,), the bundle's classes as those of lars.py (SeaClasses.table).
    smallest: of sets of anomalies: true components of fewer pixels have no weight in the
        component-averaged AP.
    """

    kind: str = ANOMALY
    whole: bool = True
    classes: int = 0
    reject: int | None = None
    sea: UInt8Array | None = None
    smallest: int = 1

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that pixel metrics are given for, the stricter one last; () for none."""
        if self.kind == INSPECTION:
            return ('image',)
        if self.kind == ANOMALY:
            return ('image', 'ground') if self.whole else ('road',)
        return ()


def measure(
    detection: Detection, labels: UInt8Array, measured: Measured, segments: Segments | None = None
) -> Arrays:
    """
    Return an image's record: its detection and all that the metrics need of its labels.

    labels: uint8 (H, W) of the detection's image; pixels that the network does not see are left
    out. segments: of a MARITIME set that has them. Raises DataError when the sizes differ.
    """
    size = (detection.geometry.camera_height, detection.geometry.camera_width)
    if labels.shape != size:
        raise DataError(f'labels {labels.shape} and image {size} differ in size')
    seen = seen_labels(detection, labels)
    arrays = pack_detection(detection)
    if measured.classes:
        arrays |= alarms_of(detection, seen, measured.classes)
        arrays |= label_agreement(detection, seen, measured.classes, measured.reject)
    if measured.sea is not None:
        arrays |= maritime_counts(detection, seen, segments, measured.sea)
    if measured.regions:
        arrays |= _anomaly_counts(detection, seen, measured)
        if measured.kind == INSPECTION:
            arrays |= inspection_counts(detection, labels)
    return arrays


def _anomaly_counts(detection: Detection, labels: UInt8Array, measured: Measured) -> Arrays:
    """Return what is counted of 0 normal and 1 anomaly."""
    surprisal = to_camera(detection.surprisal, detection.geometry)
    scored = to_camera_nearest(detection.scored, detection.geometry)
    flagged = to_camera_nearest(detection.mask, detection.geometry)
    apart = 'ground' in measured.regions
    anomaly = labels == 1
    shares, components = component_shares(anomaly, measured.smallest)
    return {
        **pack_counts(
            label_counts(surprisal, labels, scored), share_sums(surprisal, anomaly, scored, shares)
        ),
        'components': np.array(components),
        **alarms_of(detection, labels, 2, scored if apart else None),
        **objects_of(labels, flagged, scored),
        **places_of(labels, flagged, scored),
    }


def seen_labels(detection: Detection, labels: UInt8Array) -> UInt8Array:
    """Return the labels with what a cropped view leaves out as IGNORED."""
    rows, columns = camera_window(detection.geometry)
    if labels[rows, columns].shape == labels.shape:
        return labels
    seen = np.full_like(labels, IGNORED)
    seen[rows, columns] = labels[rows, columns]
    return seen


def objects_of(labels: UInt8Array, flagged: BoolArray, scored: BoolArray) -> Arrays:
    """
    Measure every object of one image: each 8-connected component of label 1.

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
    count, None = all. Each cell of the grid is compared with the thresholds, once for all of its
    pixels.
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
