# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From one detection and its picture's labels to what the metrics of a set need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..geometry import camera_window, to_camera, to_camera_nearest
from ..types import Detection, UInt8Array
from .bins import label_counts
from .breakdown import alarms_of, objects_of, places_of
from .record import Arrays, pack_counts, pack_detection

IGNORED = 255


@dataclass(frozen=True)
class Measured:
    """
    How a set is measured.

    classes: 0 for sets of anomalies (labels 0 normal, 1 anomaly); else the number of known
        classes, which the labels then are.
    whole: the labels are not the road alone, so normal pixels count inside the predicted region
        only where false alarms are concerned.
    """

    classes: int = 0
    whole: bool = True


def measure(detection: Detection, labels: UInt8Array, measured: Measured) -> Arrays:
    """
    Return a picture's record: its detection and all that the metrics need of its labels.

    labels: uint8 (H, W) of the detection's picture; pixels that the network does not see are left
    out. Raises DataError when the sizes differ.
    """
    size = (detection.geometry.camera_height, detection.geometry.camera_width)
    if labels.shape != size:
        raise DataError(f'labels {labels.shape} and picture {size} differ in size')
    labels = seen_labels(detection, labels)
    arrays = pack_detection(detection)
    if measured.classes:
        return arrays | alarms_of(detection, labels, measured.classes)
    scored = to_camera_nearest(detection.scored, detection.geometry)
    flagged = to_camera_nearest(detection.mask, detection.geometry)
    surprisal = to_camera(detection.surprisal, detection.geometry)
    arrays |= pack_counts(label_counts(surprisal, labels, scored))
    arrays |= alarms_of(detection, labels, 2, scored if measured.whole else None)
    return arrays | objects_of(labels, flagged, scored) | places_of(labels, flagged, scored)


def seen_labels(detection: Detection, labels: UInt8Array) -> UInt8Array:
    """Return the labels with what a cropped view leaves out as IGNORED."""
    rows, columns = camera_window(detection.geometry)
    if labels[rows, columns].shape == labels.shape:
        return labels
    seen = np.full_like(labels, IGNORED)
    seen[rows, columns] = labels[rows, columns]
    return seen
