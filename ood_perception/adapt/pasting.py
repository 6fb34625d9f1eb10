# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Objects pasted on a drive's own ground: what an adapted bundle still finds, without labels."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ood_perception.demo.sources import ROAD
from ood_perception.image.image_files import read_image, read_label
from ood_perception.types import BoolArray, UInt8Array

# the largest of each kind among the demo's own labelled frames
_FRAMES = ('06_crate', '12_suitcase', '18_armchair', '24_barrel')
_LEAST, _MOST = 0.04, 0.16  # heights, of the image's, at the ground's far and near end
_EACH = 2


@lru_cache(maxsize=1)
def objects() -> tuple[tuple[UInt8Array, BoolArray], ...]:
    """Return the objects as (image uint8 (h, w, 3) RGB, mask bool (h, w))."""
    found = []
    for name in _FRAMES:
        image = read_image(ROAD / 'images' / f'{name}.jpg')
        mask = read_label(ROAD / 'labels' / f'{name}.png') == 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        found.append((np.ascontiguousarray(image[box]), mask[box]))
    return tuple(found)


def with_objects(
    image: UInt8Array, ground: BoolArray, rng: np.random.Generator
) -> tuple[UInt8Array, BoolArray]:
    """
    Paste two objects of the demo, larger where the ground is near.

    image: uint8 (H, W, 3) RGB. ground: bool (H, W), where they may stand. Returns the image and
    bool (H, W), their pixels; nothing is pasted where there is no ground.
    """
    pasted, mask = image.copy(), np.zeros(ground.shape, bool)
    rows, columns = np.nonzero(ground)
    if not len(rows):
        return pasted, mask
    far, near = int(rows.min()), int(rows.max())
    for kind in rng.permutation(len(objects()))[:_EACH].tolist():
        place = int(rng.integers(len(rows)))
        bottom, centre = int(rows[place]) + 1, int(columns[place])
        depth = (bottom - far) / max(near - far, 1)
        height = max(2, round(image.shape[0] * (_LEAST + (_MOST - _LEAST) * depth)))
        _paste(pasted, mask, kind, (bottom, centre), height)
    return pasted, mask


def _paste(
    image: UInt8Array, mask: BoolArray, kind: int, foot: tuple[int, int], height: int
) -> None:
    """Paste an object of a height with its foot at (row, column); what leaves the image is cut."""
    source, shape = objects()[kind]
    size = (max(2, round(height * shape.shape[1] / shape.shape[0])), height)
    drawn = cv2.resize(source, size, interpolation=cv2.INTER_CUBIC)
    inside = cv2.resize(shape.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    top, left = foot[0] - height, foot[1] - size[0] // 2
    rows = slice(max(top, 0), min(foot[0], image.shape[0]))
    columns = slice(max(left, 0), min(left + size[0], image.shape[1]))
    part = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    chosen = inside[part]
    image[rows, columns][chosen] = drawn[part][chosen]
    mask[rows, columns] |= chosen
