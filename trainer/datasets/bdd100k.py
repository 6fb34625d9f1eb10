# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
BDD100K semantic segmentation as published: the 10K images with Cityscapes' 19 classes.

bdd100k/
  images/10k/{train,val,test}/<name>.jpg
  labels/sem_seg/masks/{train,val}/<name>.png        train ids 0..18, 255 ignored

Get "10K Images" and "Semantic Segmentation" at bdd-data.berkeley.edu.
"""

from __future__ import annotations

from pathlib import Path

from ..data.images import ClassMap, ImageList, image_list, list_images
from .cityscapes import CLASSES as CITYSCAPES
from .evaluation_set import SetEntry
from .layout import labels_of, need_folder

CLASSES = ClassMap.of(zip(CITYSCAPES.names, CITYSCAPES.colors, strict=True))
SOURCE = 'https://bdd-data.berkeley.edu (10K Images, Semantic Segmentation)'


def load(root: Path, split: str) -> ImageList:
    """Load one split (test has no labels), all of it one sequence."""
    remedy = f'unpack the packages of {SOURCE} in {root}'
    images = list_images(need_folder(root / 'images' / '10k' / split, remedy))
    masks = root / 'labels' / 'sem_seg' / 'masks' / split
    labels = labels_of(images, need_folder(masks, remedy)) if split != 'test' else []
    return image_list(images, labels, CLASSES, remedy)


ENTRIES = {
    'bdd100k': SetEntry(
        description='BDD100K, 19 classes, American roads by day and night, in rain and snow',
        title='BDD100K',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('bdd100k', 'BDD100K'),
        splits=('val', 'train', 'test'),
        licence='BDD100K licence (education, research, not for profit)',
    )
}
