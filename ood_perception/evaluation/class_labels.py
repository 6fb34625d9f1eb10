# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
How well a bundle's labels agree with those of a set that has the same classes.

Two maps are judged at label size: the most likely class, and the final map, in which flagged
pixels become one class that rejects. Where labels are another network's answer, it is agreement,
no accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image.geometry import to_camera_nearest
from ..metrics.bootstrap import RESAMPLES, resample_weights
from ..metrics.segmentation import class_iou, confusion, mean_iou
from ..types import Detection, Float64Array, Int64Array, JsonDict, UInt8Array
from .record import Arrays, RecordSet
from .results import group_record

LIKELY, FINAL = 'labels', 'final_map'
"""The groups: of the most likely class, and of the final map."""


def label_agreement(
    detection: Detection, labels: UInt8Array, classes: int, reject: int | None = None
) -> Arrays:
    """
    Count one image's pixels by true and found class: int64 (C, C), rows = labels, per map.

    labels: uint8 (H, W), class ids; ids >= classes are left out. reject: id of the class that
    flagged pixels become in the final map, None = no final map.
    """
    likely = to_camera_nearest(detection.labels, detection.geometry)
    counts = {LIKELY: confusion(likely, labels, classes)}
    if reject is not None:
        cells = np.where(detection.mask, np.uint8(reject), detection.labels)
        final = to_camera_nearest(cells, detection.geometry)
        counts[FINAL] = confusion(final, labels, classes)
    return {f'confusion_{name}': matrix for name, matrix in counts.items()}


def label_groups(
    records: RecordSet, names: Sequence[str], reject: int | None = None, seed: int = 0
) -> JsonDict:
    """
    Return the groups of the maps that were counted; see results.py.

    names: of the classes. Beside mean IoU and right pixels there is a column for the IoU of each
    class, and with reject for the share of each other class that the map calls so.
    """
    weights = resample_weights(len(records), RESAMPLES, seed)
    groups: JsonDict = {}
    for name in (LIKELY,) if reject is None else (LIKELY, FINAL):
        matrices = np.stack([arrays[f'confusion_{name}'] for arrays in records])
        samples = _values(np.tensordot(weights, matrices, axes=1), names, reject)
        values = _values(matrices.sum(axis=0), names, reject)
        facts: JsonDict = {'reject': None if reject is None else names[reject]}
        groups[name] = group_record(
            {key: float(value) for key, value in values.items()}, samples, len(records), facts
        )
    return groups


def _values(
    matrix: Int64Array | Float64Array, names: Sequence[str], reject: int | None
) -> dict[str, Float64Array]:
    """Return every column (...) of confusion matrices (..., C, C); nan where it is undefined."""
    labelled = matrix.sum(axis=-1)
    with np.errstate(invalid='ignore', divide='ignore'):
        right = np.trace(matrix, axis1=-2, axis2=-1) / labelled.sum(axis=-1)
        called = matrix[..., reject or 0] / labelled
    iou = class_iou(matrix)
    values = {'mean_iou': mean_iou(matrix), 'right_pixels': right}
    values |= {f'IoU {name}': iou[..., index] for index, name in enumerate(names)}
    if reject is not None:
        values |= {
            f'{name} called {names[reject]}': called[..., index]
            for index, name in enumerate(names)
            if index != reject
        }
    return values
