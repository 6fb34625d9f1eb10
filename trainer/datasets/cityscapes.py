# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Cityscapes as distributed, 19 classes (cityscapes-dataset.com: leftImg8bit_trainvaltest,
gtFine_trainvaltest).

cityscapes/
  leftImg8bit/{train,val,test}/<city>/<frame>_leftImg8bit.png
  gtFine/{train,val,test}/<city>/<frame>_gtFine_labelIds.png    ids 0..33
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.image.image_files import read_label, visible

from ..data.images import IGNORED, ClassMap, ImageList, image_list, list_images
from .evaluation_set import SetEntry
from .layout import of_folders

_CLASSES = (
    ('road', 7, (128, 64, 128)),
    ('sidewalk', 8, (244, 35, 232)),
    ('building', 11, (70, 70, 70)),
    ('wall', 12, (102, 102, 156)),
    ('fence', 13, (190, 153, 153)),
    ('pole', 17, (153, 153, 153)),
    ('traffic light', 19, (250, 170, 30)),
    ('traffic sign', 20, (220, 220, 0)),
    ('vegetation', 21, (107, 142, 35)),
    ('terrain', 22, (152, 251, 152)),
    ('sky', 23, (70, 130, 180)),
    ('person', 24, (220, 20, 60)),
    ('rider', 25, (255, 0, 0)),
    ('car', 26, (0, 0, 142)),
    ('truck', 27, (0, 0, 70)),
    ('bus', 28, (0, 60, 100)),
    ('train', 31, (0, 80, 100)),
    ('motorcycle', 32, (0, 0, 230)),
    ('bicycle', 33, (119, 11, 32)),
)
CLASSES = ClassMap.of(
    [(name, color) for name, _, color in _CLASSES],
    ids=[label for _, label, _ in _CLASSES],
    ignored=(*range(34), 255),
)
_IMAGE, _LABEL = '_leftImg8bit', '_gtFine_labelIds'
_LAST_TRAIN_ID, _LOOKED = 18, 20


def load(root: Path, split: str) -> ImageList:
    """
    Load one split (train, val, test) of the labelIds files; a city is a sequence.

    Raises DataError for a missing folder, no images, an image without its label file, or train
    ids in the place of label ids.
    """
    base = root / 'leftImg8bit' / split
    if not base.is_dir():
        raise DataError(f'Cityscapes images are expected in {base}, which does not exist')
    images = [p for city in visible(base) if city.is_dir() for p in list_images(city)]
    truth = root / 'gtFine' / split
    labels = [
        truth / path.parent.name / f'{path.stem.removesuffix(_IMAGE)}{_LABEL}.png'
        for path in images
    ]
    frames = image_list(images, labels, CLASSES, sequences=of_folders(images))
    _need_label_ids(labels)
    return frames


def _need_label_ids(labels: Sequence[Path]) -> None:
    """
    Raise DataError for labelIds files that hold the 19 train ids, 0..18 and 255.

    Few files are read: vegetation, sky and car, of which hardly a street lacks all, are 21 to 26.
    """
    looked = labels[:: max(1, len(labels) // _LOOKED)]
    for path in looked:
        with suppress(DataError):  # a broken file is met when its image is used
            ids = read_label(path)
            if ((ids > _LAST_TRAIN_ID) & (ids != IGNORED)).any():
                return
    raise DataError(
        f'{len(looked)} of {len(labels)} files such as {looked[0]} hold ids up to '
        f'{_LAST_TRAIN_ID} and {IGNORED} alone: these are train ids under the name of label ids. '
        'Take the labelIds files of gtFine_trainvaltest anew, or the layout "folders" with the '
        'ids 0 to 18'
    )


ENTRIES = {
    'cityscapes': SetEntry(
        description='Cityscapes, 19 classes, German cities by day',
        title='Cityscapes',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('cityscapes', 'Cityscapes'),
        splits=('val', 'train', 'test'),
        licence='Cityscapes licence (non-commercial research)',
    )
}
