# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
GOOSE and GOOSE-Ex, off-road, 2D as published (goose-dataset.de); classes are its own table's.

goose/
  goose_label_mapping.csv                              class_name, label_key, has_instance, hex
  images/{train,val,test}/<scenario>/<name>_windshield_vis.png
  labels/{train,val}/<scenario>/<name>_labelids.png

GOOSE-Ex has _front, _camera_left or _realsense in the place of _windshield_vis. The parts train,
val and test are zips of their own: unpack all of them in one folder.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import ClassMap, ImageList, image_list
from .evaluation_set import SetEntry
from .layout import nested_images, of_folders

SOURCE = 'https://goose-dataset.de/docs/setup'
TABLE = 'goose_label_mapping.csv'
# what is no surrounding: unlabelled pixels, the own vehicle, what its makers leave out of scores
_IGNORED = ('undefined', 'ego_vehicle', 'outlier')
_CAMERA = re.compile(r'_(windshield_vis|front|camera_left|realsense)$')


def load(root: Path, split: str) -> ImageList:
    """Load one split (test has no labels); a scenario is a sequence."""
    remedy = f'unpack the 2D images and annotations of {SOURCE} in {root}'
    images = nested_images(root / 'images' / split, remedy)
    truth = root / 'labels' / split
    names = [_CAMERA.sub('', path.stem) for path in images]
    labels = [
        truth / path.parent.name / f'{name}_labelids.png'
        for path, name in zip(images, names, strict=True)
    ]
    classes, sequences = load_classes(root / TABLE), of_folders(images)
    return image_list(images, labels if split != 'test' else [], classes, remedy, (), sequences)


def load_classes(path: Path) -> ClassMap:
    """Read names, ids and colours from the set's table; DataError where it is none."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = [
                (row['class_name'].strip(), int(row['label_key']), bytes.fromhex(row['hex'][1:7]))
                for row in csv.DictReader(file)
            ]
        kept = [row for row in rows if row[0] not in _IGNORED]
        ignored = {key for name, key, _ in rows if name in _IGNORED}
        return ClassMap.of(
            [(name, (red, green, blue)) for name, _, (red, green, blue) in kept],
            ids=[key for _, key, _ in kept],
            ignored={*ignored, 255},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} cannot be read as the table of GOOSE: {error!r}') from error


ENTRIES = {
    'goose': SetEntry(
        description='GOOSE, off-road: tracks, fields and forests, 61 classes',
        title='GOOSE',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('goose', 'goose-dataset', 'goose_2d', 'GOOSE'),
        splits=('val', 'train', 'test'),
        licence='CC BY-SA 4.0',
    )
}
