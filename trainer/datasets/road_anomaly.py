# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
RoadAnomaly: 60 pictures of unexpected things on and beside roads, as published.

RoadAnomaly_jpg/
  frames/<name>.jpg (or .webp)
  frames/<name>.labels/labels_semantic.png    0 normal, 2 anomaly
"""

from __future__ import annotations

from pathlib import Path

from ..data.images import ANOMALY, IGNORED, NORMAL, PictureList, list_pictures, picture_list
from .anomaly import UNSTATED, anomaly_classes
from .evaluation_set import SetEntry
from .layout import need_count, need_folder

COUNT = 60
CLASSES = anomaly_classes({0: NORMAL, 2: ANOMALY, 255: IGNORED})
SOURCE = 'https://www.epfl.ch/labs/cvlab/data/road-anomaly (RoadAnomaly_jpg.zip)'


def load(root: Path, _: str) -> PictureList:
    """Load the 60 pictures; DataError for a missing folder, picture or label file."""
    frames = need_folder(root / 'frames', f'unpack RoadAnomaly_jpg.zip from {SOURCE} there')
    images = list_pictures(frames)
    need_count(images, COUNT, 'RoadAnomaly', frames)
    return picture_list(
        images,
        [path.with_suffix('.labels') / 'labels_semantic.png' for path in images],
        CLASSES,
        'unpack RoadAnomaly_jpg.zip anew: every picture has a folder <name>.labels',
    )


ENTRIES = {
    'road_anomaly': SetEntry(
        description='RoadAnomaly, 60 pictures, anomalies anywhere',
        title='RoadAnomaly',
        kind='anomaly',
        pictures=load,
        folders=('RoadAnomaly_jpg', 'RoadAnomaly', 'road_anomaly'),
        licence=UNSTATED,
    )
}
