# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a demo picture: its objects and its road."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ood_perception.types import BoolArray, UInt8Array


@dataclass(frozen=True)
class GroundTruth:
    """
    The known parts of a picture.

    objects: bool (H, W) each, the pixels of one object. road: bool (H, W), road without objects.
    """

    objects: tuple[BoolArray, ...]
    road: BoolArray


def bounding_box(mask: BoolArray) -> tuple[int, int, int, int]:
    """Return x, y, width, height of a mask in pixels, (0, 0, 0, 0) for an empty one."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return int(x), int(y), int(width), int(height)


def from_labels(labels: UInt8Array, road: int = 0, obstacle: int = 1) -> GroundTruth:
    """Return the truth of a label picture, uint8 (H, W); every other value is not road."""
    count, parts = cv2.connectedComponents((labels == obstacle).astype(np.uint8), connectivity=8)
    objects = tuple(np.asarray(parts == index, dtype=np.bool_) for index in range(1, count))
    return GroundTruth(objects=objects, road=np.asarray(labels == road, dtype=np.bool_))
