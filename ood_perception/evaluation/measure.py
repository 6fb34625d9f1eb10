# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From one detection and its picture's labels to what the metrics of a set need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ood_perception.image.geometry import camera_window, to_camera, to_camera_nearest
from ood_perception.metrics.aupro import component_shares
from ood_perception.metrics.binning import label_counts, share_sums

from ..errors import DataError
from ..types import Detection, UInt8Array
from .breakdown import alarms_of, objects_of, places_of
from .class_labels import label_agreement
from .inspection import inspection_counts
from .maritime import Segments, maritime_counts
from .record import Arrays, pack_counts, pack_detection, pack_shares

IGNORED = 255
ANOMALY, INSPECTION, CLOSED_SET, MARITIME = 'anomaly', 'inspection', 'closed-set', 'maritime'


@dataclass(frozen=True, eq=False)
class Measured:
    """
    How a set is measured.

    kind: ANOMALY and INSPECTION: labels 0 normal, 1 anomaly. CLOSED_SET: labels are class ids.
        MARITIME: labels are those of lars.py.
    whole: of ANOMALY: the labels are not the road alone, so the predicted region is measured
        apart, and false alarms are those inside it.
    classes: number of known classes whose promise is counted, 0 = none; the labels are their ids.
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
    detection: Detection,
    labels: UInt8Array,
    measured: Measured,
    segments: Segments | None = None,
) -> Arrays:
    """
    Return a picture's record: its detection and all that the metrics need of its labels.

    labels: uint8 (H, W) of the detection's picture; pixels that the network does not see are left
    out. segments: of a MARITIME set that has them. Raises DataError when the sizes differ.
    """
    size = (detection.geometry.camera_height, detection.geometry.camera_width)
    if labels.shape != size:
        raise DataError(f'labels {labels.shape} and picture {size} differ in size')
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
        **pack_counts(label_counts(surprisal, labels, scored)),
        **pack_shares(share_sums(surprisal, anomaly, scored, shares)),
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
