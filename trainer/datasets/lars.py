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

from ood_perception.errors import DataError
from ood_perception.metrics.lars import COLOURS

from ..data.images import IGNORED, ClassMap, PictureList
from .evaluation_set import EvaluationSet, SetEntry
from .layout import before_last, need_folder, picture_list
from .panoptic import PanopticLabels

CLASSES = ClassMap(
    ('obstacle', 'water', 'sky'),
    COLOURS,
    {0: 0, 1: 1, 2: 2, 255: IGNORED},
)
LICENCE = 'see its site'
SOURCE = 'https://lojzezust.github.io/lars-dataset'
_LABELLED = ('train', 'val')


def load(root: Path, split: str) -> PictureList:
    """Load one split with the semantic masks (none for test); frames of a film are a sequence."""
    base = need_folder(root / split, f'unpack lars_v1.0.0 images and annotations from {SOURCE}')
    names = _names(base)
    images = [base / 'images' / f'{name}.jpg' for name in names]
    missing = [path for path in images if not path.is_file()]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(images)} pictures of {base / "image_list.txt"} are missing, '
            f'the first is {missing[0]}; unpack lars_v1.0.0_images.zip from {SOURCE} there'
        )
    return picture_list(
        images,
        (lambda path: base / 'semantic_masks' / f'{path.stem}.png')
        if split in _LABELLED
        else None,
        CLASSES,
        f'unpack lars_v1.0.0_annotations.zip from {SOURCE} in {root}',
        sequence_of=before_last,
    )


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open one split; train and val with panoptic labels, which are read when asked for."""
    pictures = load(root, split)
    panoptic = PanopticLabels(root / split, pictures.names) if split in _LABELLED else None
    name, title = f'lars/{split}', f'LaRS {split}'
    return EvaluationSet(
        name, title, pictures, 'maritime', 'image', LICENCE, SOURCE, panoptic=panoptic
    )


def _names(base: Path) -> list[str]:
    """Read image_list.txt; names with or without suffix."""
    path = base / 'image_list.txt'
    try:
        lines = path.read_text(encoding='utf-8').split()
    except OSError as error:
        raise DataError(f'{path} cannot be read: it lists the pictures of the split') from error
    if not lines:
        raise DataError(f'{path} is empty: it lists the pictures of the split')
    return [line.removesuffix('.jpg').removesuffix('.png') for line in lines]


ENTRY = SetEntry(
    'LaRS, boats: obstacle, water, sky; panoptic',
    load_set,
    ('lars', 'LaRS', 'lars_v1.0.0'),
    ('val', 'train', 'test'),
    __doc__ or '',
)
