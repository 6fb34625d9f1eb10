# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
StreetHazards (CAOS), rendered streets with anomalies in the test towns, as published.

streethazards/
  train/images/training/t1-3/<number>.png
  train/images/validation/t4/<number>.png
  train/annotations/{training/t1-3,validation/t4}/<number>.png    1 unlabelled, 2..13 known
  test/images/test/{t5,t6}/<number>.png
  test/annotations/test/{t5,t6}/<number>.png                      14 anomaly, too

or the same below streethazards_train/ and streethazards_test/, as the archives are called.

Anomaly labels: 14 anomaly; everything else, unlabelled included, is normal, as its makers score.
Class labels: 12 known classes, unlabelled and anomaly IGNORED.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import ANOMALY, IGNORED, NORMAL, ClassMap, ImageList, image_list
from .anomaly import anomaly_classes
from .evaluation_set import SetEntry
from .layout import nested_images, of_folders

_CLASSES = (
    ('building', (70, 70, 70)),
    ('fence', (190, 153, 153)),
    ('other', (250, 170, 160)),
    ('pedestrian', (220, 20, 60)),
    ('pole', (153, 153, 153)),
    ('road line', (157, 234, 50)),
    ('road', (128, 64, 128)),
    ('sidewalk', (244, 35, 232)),
    ('vegetation', (107, 142, 35)),
    ('car', (0, 0, 142)),
    ('wall', (102, 102, 156)),
    ('traffic sign', (220, 220, 0)),
)
_UNLABELLED, _FIRST, _ANOMALY = 1, 2, 14
CLASSES = ClassMap.of(
    _CLASSES,
    ids=range(_FIRST, _FIRST + len(_CLASSES)),
    ignored=(_UNLABELLED, _ANOMALY, 255),
)
ANOMALIES = anomaly_classes(
    {**dict.fromkeys(range(_UNLABELLED, _ANOMALY), NORMAL), _ANOMALY: ANOMALY, 255: IGNORED}
)
SOURCE = 'https://github.com/hendrycks/anomaly-seg (streethazards_train, streethazards_test)'
_PARTS = {'train': ('train', 'training'), 'val': ('train', 'validation'), 'test': ('test', 'test')}


def load(root: Path, split: str, classes: ClassMap = CLASSES) -> ImageList:
    """Load one split, by default with the known classes; a town is a sequence."""
    if split not in _PARTS:
        raise DataError(f'StreetHazards has no split {split!r}; it has {", ".join(_PARTS)}')
    archive, part = _PARTS[split]
    remedy = f'unpack streethazards_{archive}.tar from {SOURCE} in {root}'
    own = root / f'streethazards_{archive}' / archive  # each archive in a folder of its name
    base = own if own.is_dir() else root / archive
    images = nested_images(base / 'images' / part, remedy)
    images.sort(key=lambda path: (path.parent.name, len(path.stem), path.stem))
    return image_list(
        images,
        [base / 'annotations' / part / p.parent.name / f'{p.stem}.png' for p in images],
        classes,
        remedy,
        [f'{path.parent.name}_{path.stem}' for path in images],
        of_folders(images),
    )


ENTRIES = {
    'streethazards': SetEntry(
        description='StreetHazards, rendered towns; anomalies and 12 known classes',
        title='StreetHazards',
        kind='anomaly',
        images=partial(load, classes=ANOMALIES),
        layout=load,
        more=lambda root, split, _: {'classes': load(root, split)},
        folders=('streethazards', 'StreetHazards'),
        splits=('test', 'val', 'train'),
        licence='see its makers (their code is MIT)',
    )
}
