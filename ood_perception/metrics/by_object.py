# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
AP of the objects of one size, or at one distance: those of other bins are left out.

All normal pixels stay, so that the bins of one run are comparable: what is found of the small
objects is ranked against the same alarms as what is found of the large ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import BoolArray, Float32Array, Int64Array, UInt8Array
from .binning import BINS, bin_of, binned_metrics

SIZE, ROW = 'size', 'row'
# SIZE: square root of the area, in fractions of the image's width; a patch of 14 pixels at a
# network width of 672 is 0.021. ROW: lowest row in fractions of the image's height: the greater
# the nearer.
EDGES: Mapping[str, tuple[float, ...]] = {SIZE: (0.01, 0.02, 0.04), ROW: (0.5, 0.6, 0.7)}


@dataclass(frozen=True)
class ObjectCounts:
    """
    Pixels by score bin: of the objects of each bin, and normal ones.

    positives: kind -> int64 (bins, BINS). objects: kind -> int64 (bins,), their number.
    negatives: int64 (BINS,).
    """

    positives: Mapping[str, Int64Array]
    objects: Mapping[str, Int64Array]
    negatives: Int64Array

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            {kind: one + other.positives[kind] for kind, one in self.positives.items()},
            {kind: one + other.objects[kind] for kind, one in self.objects.items()},
            self.negatives + other.negatives,
        )

    def average_precision(self, kind: str) -> list[float | None]:
        """Return the AP of each bin, 0 to 1; None where it holds no object."""
        values = [
            binned_metrics(counts, self.negatives).average_precision.value
            for counts in self.positives[kind]
        ]
        return [None if np.isnan(value) else value for value in values]


def object_counts(scores: Float32Array, labels: UInt8Array, inside: BoolArray) -> ObjectCounts:
    """
    Count one image's pixels by object.

    scores: float32 (H, W). labels: uint8 (H, W), 0 normal, 1 anomaly, all others left out.
    inside: bool (H, W), pixels that count; an object belongs to a bin by all of its pixels, those
    outside included. An object is an 8-connected component.
    """
    height, width = labels.shape
    _, ids, stats, _ = cv2.connectedComponentsWithStats(
        (labels == 1).astype(np.uint8), connectivity=8
    )
    lowest = stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT]
    values = {SIZE: np.sqrt(stats[:, cv2.CC_STAT_AREA]) / width, ROW: lowest / height}
    bins = bin_of(np.ascontiguousarray(scores))
    found = (labels == 1) & inside
    positives, objects = {}, {}
    for kind, edges in EDGES.items():
        place = np.searchsorted(edges, values[kind], 'right')
        length = len(edges) + 1
        codes = place[ids[found]] * BINS + bins[found]
        positives[kind] = np.bincount(codes, minlength=length * BINS).reshape(length, BINS)
        objects[kind] = np.bincount(place[1:], minlength=length)
    negatives = np.bincount(bins[(labels == 0) & inside], minlength=BINS)
    return ObjectCounts(positives, objects, negatives)
