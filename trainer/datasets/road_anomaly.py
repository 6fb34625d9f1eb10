# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
RoadAnomaly: 60 images of unexpected things on and beside roads, as published.

RoadAnomaly_jpg/
  frames/<name>.jpg (or .webp)
  frames/<name>.labels/labels_semantic.png    0 normal, 2 anomaly
"""

from __future__ import annotations

from pathlib import Path

from ..data.images import ANOMALY, IGNORED, NORMAL, ImageList, image_list, list_images
from .anomaly import UNSTATED, anomaly_classes
from .evaluation_set import SetEntry
from .layout import need_count, need_folder

COUNT = 60
CLASSES = anomaly_classes({0: NORMAL, 2: ANOMALY, 255: IGNORED})
SOURCE = 'https://www.epfl.ch/labs/cvlab/data/road-anomaly (RoadAnomaly_jpg.zip)'


def load(root: Path, _: str) -> ImageList:
    """Load the 60 images; DataError for a missing folder, image or label file."""
    frames = need_folder(root / 'frames', f'unpack RoadAnomaly_jpg.zip from {SOURCE} there')
    images = list_images(frames)
    need_count(images, COUNT, 'RoadAnomaly', frames)
    return image_list(
        images,
        [path.with_suffix('.labels') / 'labels_semantic.png' for path in images],
        CLASSES,
        'unpack RoadAnomaly_jpg.zip anew: every image has a folder <name>.labels',
    )


ENTRIES = {
    'road_anomaly': SetEntry(
        description='RoadAnomaly, 60 images, anomalies anywhere',
        title='RoadAnomaly',
        kind='anomaly',
        images=load,
        folders=('RoadAnomaly_jpg', 'RoadAnomaly', 'road_anomaly'),
        licence=UNSTATED,
    )
}
