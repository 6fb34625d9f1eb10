# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
MVTec AD: a product is a set; the split 'train' is the flawless images of all products.

Then each product is a class, and every pixel of its images belongs to it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import DataError
from ood_perception.image.image_files import visible
from ood_perception.types import UInt8Array

from ..data.images import ANOMALY, NORMAL, ClassMap, ImageList, image_list, read_image
from .class_maps import anomaly_classes
from .files import nested_images

CLASSES = anomaly_classes({0: NORMAL, 1: ANOMALY, 255: ANOMALY})
SOURCE = 'https://www.mvtec.com/company/research/datasets/mvtec-ad'
_GOOD = 'good'


@dataclass(frozen=True)
class _Inspected(ImageList):
    """Images whose flawless ones have no label file: their entry is the image itself."""

    def file_ids(self, index: int) -> UInt8Array:
        """Return the mask's values, zeros for a flawless image."""
        if self.labels[index] != self.images[index]:
            return super().file_ids(index)
        shape = read_image(self.images[index]).shape
        return np.zeros(shape[:2], np.uint8)


@dataclass(frozen=True)
class _Flawless(ImageList):
    """Flawless images: an image's sequence is its product, and so is each of its pixels."""

    def file_ids(self, index: int) -> UInt8Array:
        """Return the product's class everywhere."""
        shape = read_image(self.images[index]).shape
        product = self.classes.names.index(self.sequences[index])
        return np.full(shape[:2], product, np.uint8)


def products(root: Path) -> list[str]:
    """Return the names of the products that have flawless images, sorted."""
    return [path.name for path in visible(root) if (path / 'train' / _GOOD).is_dir()]


def load(root: Path, split: str) -> ImageList:
    """List the flawless images of all products as training data; DataError without any."""
    known = products(root)
    if split != 'train' or not known:
        raise DataError(
            f'mvtec/{split}: train on the split "train", which needs <product>/train/good in '
            f'{root}; there are the products {", ".join(known) or "none"}'
        )
    parts = [nested_images(root / name / 'train', f'unpack {name} anew') for name in known]
    images = [path for part in parts for path in part]
    owners = [path.parents[2].name for path in images]
    names = [f'{owner}_{path.stem}' for owner, path in zip(owners, images, strict=True)]
    classes = product_classes(known)
    return image_list(images, images, classes, '', names, owners).remade(_Flawless)


def product_classes(names: Sequence[str]) -> ClassMap:
    """Return one class a product, with colours around the hue circle."""
    hues = [colorsys.hsv_to_rgb(i / len(names), 0.6, 0.9) for i in range(len(names))]
    colors = tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)
    return ClassMap(tuple(names), colors, {i: i for i in range(len(names))})


def load_product(root: Path, split: str) -> ImageList:
    """Load a product, or its flawless images; DataError naming the products that are there."""
    product, _, part = split.partition('/')
    known = products(root)
    if product not in known or part not in ('', 'test', 'train'):
        raise DataError(
            f'mvtec/{split}: not a product in {root}, nor <product>/train; it holds '
            f'{", ".join(known) or "none"}; unpack mvtec_anomaly_detection from {SOURCE} there'
        )
    base, part = root / product, part or 'test'
    images = nested_images(base / part, f'unpack {product} anew')

    labels = [
        path
        if path.parent.name == _GOOD
        else base / 'ground_truth' / path.parent.name / f'{path.stem}_mask.png'
        for path in images
    ]
    folders = [path.parent.name for path in images]
    names = [f'{path.parent.name}_{path.stem}' for path in images]
    remedy = f'unpack {product} anew'
    listed = image_list(images, labels, CLASSES, remedy, names, folders)
    return listed.remade(_Inspected)


def more(split: str, images: ImageList) -> dict[str, Any]:
    """Return the title of a product's part, and which images show a defect."""
    product, _, part = split.partition('/')
    return {
        'title': f'MVTec AD {product} {part or "test"}',
        'anomalous_images': tuple(folder != _GOOD for folder in images.sequences),
    }
