# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Fishyscapes validation sets: LostAndFound (100 images) and Static (30).

fishyscapes/                                   LostAndFound, as published:
  fishyscapes_lostandfound/<NNNN>_<frame>_labels.png       0 normal, 1 anomaly, 255 void
  leftImg8bit/{train,test}/<NN_scene>/<frame>_leftImg8bit.png   the LostAndFound images; also
                                               taken from dataset_LostAndFound beside this folder

fishyscapes/                                   either set, paired (as many papers' copies are):
  {LostAndFound,Static}/original/<name>.png (or .jpg)
  {LostAndFound,Static}/labels/<name>.png      0 normal, 1 anomaly, 255 void

Static is published as overlays on Cityscapes, which its makers' tool puts together.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import ImageList, image_list, list_images
from .anomaly import PLAIN
from .evaluation_set import SetEntry
from .layout import before_last, need_count
from .lost_and_found import IMAGE_SUFFIX, frame_name
from .lost_and_found import LICENCE as IMAGES_LICENCE

SOURCE = 'https://fishyscapes.com/dataset'
COUNTS = {'LostAndFound': 100, 'Static': 30}
_LABELS = 'fishyscapes_lostandfound'
_IMAGE_ROOTS = (
    '.',
    'lostandfound',
    '../dataset_LostAndFound',
    '../lost_and_found',
    '../LostAndFound',
)


def load(root: Path, _: str, part: str) -> ImageList:
    """Load the images of a part, a key of COUNTS; DataError naming what is missing."""
    if part == 'LostAndFound' and (root / _LABELS).is_dir():
        return _published(root)
    return _paired(root, part)


def _published(root: Path) -> ImageList:
    """Find the LostAndFound image of every published label file."""
    labels = list_images(root / _LABELS)
    need_count(labels, COUNTS['LostAndFound'], 'Fishyscapes LostAndFound', root / _LABELS)
    frames = {path.stem.partition('_')[2].removesuffix('_labels'): path for path in labels}
    found = {
        frame_name(path): path
        for place in _IMAGE_ROOTS
        for path in (root / place / 'leftImg8bit').glob(f'*/*/*{IMAGE_SUFFIX}.*')
    }
    missing = [frame for frame in frames if frame not in found]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(frames)} LostAndFound images are missing, the first is '
            f"{missing[0]}{IMAGE_SUFFIX}.png; unpack LostAndFound's leftImg8bit in {root}"
        )
    return image_list(
        [found[frame] for frame in frames],
        [*frames.values()],
        PLAIN,
        f'unpack the labels from {SOURCE} anew',
        [*frames],
        before_last(frames),
    )


def _paired(root: Path, part: str) -> ImageList:
    """Read original/ and labels/ of one part."""
    folder = root / part / 'original'
    if not folder.is_dir():
        raise DataError(
            f'neither {root / _LABELS} (LostAndFound only) nor {folder} exists\n{__doc__}'
        )
    images = list_images(folder)
    need_count(images, COUNTS[part], f'Fishyscapes {part} validation', folder)
    return image_list(
        images,
        [root / part / 'labels' / f'{path.stem}.png' for path in images],
        PLAIN,
        f'make the labels anew from {SOURCE}',
    )


ENTRIES = {
    name: SetEntry(
        description=f'Fishyscapes {part} validation, {COUNTS[part]} images',
        title=f'Fishyscapes {part} validation',
        kind='anomaly',
        images=partial(load, part=part),
        folders=('fishyscapes', 'Fishyscapes'),
        licence=f'labels: see its site; images: {IMAGES_LICENCE}, Cityscapes licence for Static',
    )
    for name, part in (
        ('fishyscapes_lost_and_found', 'LostAndFound'),
        ('fishyscapes_static', 'Static'),
    )
}
