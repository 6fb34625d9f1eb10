# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
IDD segmentation, Indian streets: part I or II with the 26 classes of level 3, or IDD-lite.

IDD_Segmentation/
  leftImg8bit/{train,val,test}/<drive>/<frame>_leftImg8bit.png (or .jpg)
  gtFine/{train,val}/<drive>/<frame>_gtFine_labellevel3Ids.png     0..25, 255 ignored

idd_lite/{images,labels}/<drive>_<frame>.jpg, .png       0..6, the classes of level 1, 255 ignored

The first is published with polygons only; its makers' tool (github.com/AutoNUE/public-code) paints
them: python preparation/createLabels.py --datadir IDD_Segmentation --id-type level3Id
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import ClassMap, ImageList, image_list
from .evaluation_set import SetEntry
from .folders import load_folders
from .layout import nested_images, of_folders

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
CLASSES = ClassMap.of(_CLASSES)
LITE_CLASSES = ClassMap.of(
    (
        ('drivable', (128, 64, 128)),
        ('non-drivable', (244, 35, 232)),
        ('living things', (220, 20, 60)),
        ('vehicles', (0, 0, 142)),
        ('roadside objects', (220, 190, 40)),
        ('far objects', (107, 142, 35)),
        ('sky', (70, 130, 180)),
    )
)
SOURCE = 'https://idd.insaan.iiit.ac.in'
_PAINT = (
    'paint the polygons with github.com/AutoNUE/public-code: python preparation/createLabels.py '
    '--datadir {root} --id-type level3Id'
)
_IMAGE, _LABEL, _POLYGONS = '_leftImg8bit', '_gtFine_labellevel3Ids.png', '_gtFine_polygons.json'


def load(root: Path, split: str) -> ImageList:
    """Load one split (test has no labels); a drive is a sequence."""
    remedy = f'unpack IDD_Segmentation from {SOURCE} in {root}'
    images = nested_images(root / 'leftImg8bit' / split, remedy)

    frames = [path.stem.removesuffix(_IMAGE) for path in images]
    places = [f'{path.parent.name}/{frame}' for path, frame in zip(images, frames, strict=True)]
    truth = root / 'gtFine' / split
    labels = [truth / f'{place}{_LABEL}' for place in places] if split != 'test' else []
    if labels and (truth / f'{places[0]}{_POLYGONS}').is_file():
        remedy = _PAINT.format(root=root)
        if not labels[0].is_file():
            raise DataError(f'{labels[0]} does not exist; {remedy}')
    names = [place.replace('/', '_') for place in places]
    return image_list(images, labels, CLASSES, remedy, names, of_folders(images))


ENTRIES = {
    'idd': SetEntry(
        description='IDD, Indian streets, 26 classes of level 3',
        title='IDD',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('IDD_Segmentation', 'idd', 'IDD', 'idd20kII'),
        splits=('val', 'train', 'test'),
        licence="IDD's terms, see its site",
    ),
    'idd_lite': SetEntry(
        description='IDD-lite, a sample of Indian streets, 7 classes of level 1',
        title='IDD-lite',
        kind='closed-set',
        images=lambda root, _: load_folders(root / 'images', root / 'labels', LITE_CLASSES),
        folders=('idd_lite',),
        licence="IDD's terms, see its site",
    ),
}
