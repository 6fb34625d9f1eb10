# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
LaRS, lakes, rivers and seas from boats, version 1.0.0 as published (images, annotations).

lars/
  {train,val,test}/image_list.txt                    names, one a line
  {train,val,test}/images/<name>.jpg
  {train,val}/semantic_masks/<name>.png              0 obstacle, 1 water, 2 sky, 255 ignored
  {train,val}/panoptic_masks/<name>.png              segment id = R + 256 G + 65536 B
  {train,val}/panoptic_annotations.json              COCO panoptic: segments and categories

The test labels are with its server (macvi.org): see "trainer submission".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ood_perception.errors import DataError
from ood_perception.metrics.lars import COLOURS

from ..data.images import ClassMap, ImageList, image_list, need_files
from .evaluation_set import SetEntry
from .layout import before_last, need_folder
from .panoptic import PanopticLabels

CLASSES = ClassMap.of(zip(('obstacle', 'water', 'sky'), COLOURS, strict=True))
SOURCE = 'https://lojzezust.github.io/lars-dataset'
_LABELLED = ('train', 'val')


def load(root: Path, split: str) -> ImageList:
    """Load one split with the semantic masks (none for test); frames of a film are a sequence."""
    base = need_folder(root / split, f'unpack lars_v1.0.0 images and annotations from {SOURCE}')
    names = _names(base)
    images = [base / 'images' / f'{name}.jpg' for name in names]
    what = f'images of {base / "image_list.txt"}'
    need_files(images, what, f'unpack lars_v1.0.0_images.zip from {SOURCE} there')
    masks = base / 'semantic_masks'
    return image_list(
        images,
        [masks / f'{path.stem}.png' for path in images] if split in _LABELLED else [],
        CLASSES,
        f'unpack lars_v1.0.0_annotations.zip from {SOURCE} in {root}',
        sequences=before_last(path.stem for path in images),
    )


def _panoptic(root: Path, split: str, images: ImageList) -> dict[str, Any]:
    """Return the segments of train and val, which are read when asked for."""
    if split not in _LABELLED:
        return {}
    return {'panoptic': PanopticLabels(root / split, images.names)}


def _names(base: Path) -> list[str]:
    """Read image_list.txt; names with or without suffix."""
    path = base / 'image_list.txt'
    try:
        lines = path.read_text(encoding='utf-8').split()
    except OSError as error:
        raise DataError(f'{path} cannot be read: it lists the images of the split') from error
    if not lines:
        raise DataError(f'{path} is empty: it lists the images of the split')
    return [line.removesuffix('.jpg').removesuffix('.png') for line in lines]


ENTRIES = {
    'lars': SetEntry(
        description='LaRS, boats: obstacle, water, sky; panoptic',
        title='LaRS',
        kind='maritime',
        images=load,
        layout=load,
        more=_panoptic,
        folders=('lars', 'LaRS', 'lars_v1.0.0'),
        splits=('val', 'train', 'test'),
        licence='see its site',
    )
}
