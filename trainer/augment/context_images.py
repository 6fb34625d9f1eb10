# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Whole everyday images with their objects marked: what CoroCL calls the other context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ood_perception.errors import DataError
from ood_perception.types import UInt8Array

from ..data.images import ClassMap, ImageList, read_image
from .coco import JSON_FILE, Mask, need_images, read_coco
from .cutouts import part_of
from .pasting import OUTLIER
from .views import hash_of

KNOWN = 0
"""What every pixel outside the objects is labelled: some known thing, no matter which."""


@dataclass(frozen=True)
class ContextImages(ImageList):
    """Everyday images; labels are drawn from the masks of each image's objects."""

    masks: tuple[tuple[Mask, ...], ...] = ()

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return uint8 (H, W, 3) RGB and uint8 (H, W), OUTLIER on objects and KNOWN elsewhere."""
        image = read_image(self.images[index])
        labels = np.full(image.shape[:2], KNOWN, np.uint8)
        for mask in self.masks[index]:
            mask.draw(labels, OUTLIER)
        return image, labels


def load_context(
    folder: Path, part: str, classes: ClassMap, exclude: Sequence[str] = ()
) -> ContextImages:
    """
    Return the images of one part ('training' or 'selection') that show objects.

    folder: images/ and instances.json in COCO's format. classes: of the road images, for the
    list alone. exclude: categories that are known, not outliers. Crowds are not marked.
    Raises DataError for a missing or wrong file (the annotation is named), an image that is
    missing or of another size, and a part without objects.
    """
    shown = [
        (image, tuple(one.mask for one in image.objects if one.category not in exclude))
        for image in read_coco(folder)
        if part_of(image.name) == part
    ]
    shown = [(image, masks) for image, masks in shown if masks]
    if not shown:
        source = folder / JSON_FILE
        raise DataError(f'{source} has no image with objects for the part {part!r}')
    need_images(image for image, _ in shown)
    names = tuple(f'{image.name}@{_mark(masks)}' for image, masks in shown)
    images = tuple(image.path for image, _ in shown)
    marked = tuple(masks for _, masks in shown)
    return ContextImages(names, images, (), names, classes, masks=marked)


def _mark(masks: Sequence[Mask]) -> str:
    """Return a short hash of what is marked: it tells images apart, and seeds their views."""
    return hash_of({'polygons': [part for mask in masks for part in mask.mark()]})
