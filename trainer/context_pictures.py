# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Whole everyday pictures with their objects marked: what CoroCL calls the other context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

from .data import ClassMap, PictureList, read_image
from .outliers import part_of
from .pasting import OUTLIER
from .views import hash_of

UInt8Array = npt.NDArray[np.uint8]
KNOWN = 0
"""What every pixel outside the objects is labelled: some known thing, no matter which."""
Polygon = Sequence[float]


@dataclass(frozen=True)
class ContextPictures(PictureList):
    """Everyday pictures; labels are drawn from polygons x0, y0, x1, y1, ... of each picture."""

    polygons: tuple[tuple[Polygon, ...], ...] = ()

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return uint8 (H, W, 3) RGB and uint8 (H, W), OUTLIER on objects and KNOWN elsewhere."""
        image = read_image(self.images[index])
        labels = np.full(image.shape[:2], KNOWN, np.uint8)
        for polygon in self.polygons[index]:
            points = np.round(np.asarray(polygon, np.float64).reshape(-1, 1, 2)).astype(np.int32)
            cv2.fillPoly(labels, [points], OUTLIER)
        return image, labels


def load_context(
    folder: Path, part: str, classes: ClassMap, exclude: Sequence[str] = ()
) -> ContextPictures:
    """
    Return the pictures of one part ('training' or 'selection') that show objects.

    folder: images/ and instances.json in COCO's format. classes: of the road pictures, for the
    list alone. exclude: categories that are known, not outliers. Crowds are not marked.
    Raises DataError for a missing file or a part without objects.
    """
    source = folder / 'instances.json'
    if not source.is_file():
        raise DataError(f'{source} is missing; give the folder with COCO polygons and images')
    coco = json.loads(source.read_text(encoding='utf-8'))
    marked = _polygons(coco, exclude)
    shown = sorted(
        (entry['file_name'], tuple(marked[entry['id']]))
        for entry in coco['images']
        if part_of(entry['file_name']) == part and entry['id'] in marked
    )
    if not shown:
        raise DataError(f'{source} has no picture with objects for the part {part!r}')
    names = tuple(f'{name}@{hash_of({"polygons": polygons})}' for name, polygons in shown)
    images = tuple(folder / 'images' / name for name, _ in shown)
    polygons = tuple(polygons for _, polygons in shown)
    return ContextPictures(names, images, (), names, classes, polygons)


def _polygons(coco: dict[str, Any], exclude: Sequence[str]) -> dict[int, list[Polygon]]:
    """Return image id -> polygons of its objects."""
    categories = {entry['id']: entry['name'] for entry in coco['categories']}
    marked: dict[int, list[Polygon]] = {}
    for entry in coco['annotations']:
        if not entry.get('iscrowd') and categories[entry['category_id']] not in exclude:
            marked.setdefault(entry['image_id'], []).extend(entry['segmentation'])
    return marked
