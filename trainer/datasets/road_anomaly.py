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

from ..data.images import ANOMALY, IGNORED, NORMAL, list_pictures
from .anomaly import anomaly_classes
from .evaluation_set import EvaluationSet, SetEntry
from .layout import need_count, need_folder, picture_list

COUNT = 60
CLASSES = anomaly_classes({0: NORMAL, 2: ANOMALY, 255: IGNORED})
LICENCE = 'no licence stated by its makers; ask them before anything but research'
SOURCE = 'https://www.epfl.ch/labs/cvlab/data/road-anomaly (RoadAnomaly_jpg.zip)'


def load_set(root: Path, _: str) -> EvaluationSet:
    """Open the 60 pictures; DataError for a missing folder, picture or label file."""
    frames = need_folder(root / 'frames', f'unpack RoadAnomaly_jpg.zip from {SOURCE} there')
    images = list_pictures(frames)
    need_count(images, COUNT, 'RoadAnomaly', frames)
    pictures = picture_list(
        images,
        lambda path: path.with_suffix('.labels') / 'labels_semantic.png',
        CLASSES,
        'unpack RoadAnomaly_jpg.zip anew: every picture has a folder <name>.labels',
    )
    title = 'RoadAnomaly'
    return EvaluationSet('road_anomaly', title, pictures, 'anomaly', 'image', LICENCE, SOURCE)


ENTRY = SetEntry(
    'RoadAnomaly, 60 pictures, anomalies anywhere',
    load_set,
    ('RoadAnomaly_jpg', 'RoadAnomaly', 'road_anomaly'),
    tree=__doc__ or '',
)
