# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
IDD segmentation, Indian streets, part I or II, with the 26 classes of level 3.

IDD_Segmentation/
  leftImg8bit/{train,val,test}/<drive>/<frame>_leftImg8bit.png (or .jpg)
  gtFine/{train,val}/<drive>/<frame>_gtFine_labellevel3Ids.png     0..25, 255 ignored

It is published with polygons only; its makers' tool (github.com/AutoNUE/public-code) paints them:
python preparation/createLabels.py --datadir IDD_Segmentation --id-type level3Id
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import IGNORED, ClassMap, PictureList
from .evaluation_set import EvaluationSet, SetEntry
from .layout import nested_pictures, picture_list

_CLASSES = (
    ('road', (128, 64, 128)),
    ('parking or drivable fallback', (250, 170, 160)),
    ('sidewalk', (244, 35, 232)),
    ('rail track or non-drivable fallback', (230, 150, 140)),
    ('person or animal', (220, 20, 60)),
    ('rider', (255, 0, 0)),
    ('motorcycle', (0, 0, 230)),
    ('bicycle', (119, 11, 32)),
    ('autorickshaw', (255, 204, 54)),
    ('car', (0, 0, 142)),
    ('truck', (0, 0, 70)),
    ('bus', (0, 60, 100)),
    ('other vehicle', (136, 143, 153)),
    ('curb', (220, 190, 40)),
    ('wall', (102, 102, 156)),
    ('fence', (190, 153, 153)),
    ('guard rail', (180, 165, 180)),
    ('billboard', (174, 64, 67)),
    ('traffic sign', (220, 220, 0)),
    ('traffic light', (250, 170, 30)),
    ('pole', (153, 153, 153)),
    ('obstruction fallback', (169, 187, 214)),
    ('building', (70, 70, 70)),
    ('bridge or tunnel', (150, 100, 100)),
    ('vegetation', (107, 142, 35)),
    ('sky or background fallback', (70, 130, 180)),
)
CLASSES = ClassMap(
    tuple(name for name, _ in _CLASSES),
    tuple(color for _, color in _CLASSES),
    {**{index: index for index in range(len(_CLASSES))}, 255: IGNORED},
)
LICENCE = "IDD's terms, see its site"
SOURCE = 'https://idd.insaan.iiit.ac.in'
_PAINT = (
    'paint the polygons with github.com/AutoNUE/public-code: python preparation/createLabels.py '
    '--datadir {root} --id-type level3Id'
)
_IMAGE, _LABEL, _POLYGONS = '_leftImg8bit', '_gtFine_labellevel3Ids.png', '_gtFine_polygons.json'


def load(root: Path, split: str) -> PictureList:
    """Load one split (test has no labels); a drive is a sequence."""
    remedy = f'unpack IDD_Segmentation from {SOURCE} in {root}'
    images = nested_pictures(root / 'leftImg8bit' / split, remedy)

    def gt(path: Path, suffix: str) -> Path:
        return root / 'gtFine' / split / path.parent.name / (_frame(path) + suffix)

    if split != 'test' and gt(images[0], _POLYGONS).is_file():
        if not gt(images[0], _LABEL).is_file():
            raise DataError(f'{gt(images[0], _LABEL)} does not exist; {_PAINT.format(root=root)}')
        remedy = _PAINT.format(root=root)
    return picture_list(
        images,
        None if split == 'test' else lambda path: gt(path, _LABEL),
        CLASSES,
        remedy,
        lambda path: f'{path.parent.name}_{_frame(path)}',
        lambda path: path.parent.name,
    )


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open one split for evaluation: 26 known classes."""
    name, title, pictures = f'idd/{split}', f'IDD {split}', load(root, split)
    return EvaluationSet(name, title, pictures, 'closed-set', 'image', LICENCE, SOURCE)


def _frame(path: Path) -> str:
    return path.stem.removesuffix(_IMAGE)


ENTRY = SetEntry(
    'IDD, Indian streets, 26 classes of level 3',
    load_set,
    ('IDD_Segmentation', 'idd', 'IDD', 'idd20kII'),
    ('val', 'train', 'test'),
    __doc__ or '',
)
