# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Sets with pixel labels of anomalies: `root`/{images,labels} of RoadAnomaly, RoadObstacle, ...

As picture lists of two classes, 0 normal and 1 anomaly; pixels that are not scored are IGNORED.
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import ConfigError

from ..data import IGNORED, ClassMap, PictureList
from .folders import load_folders

NORMAL, ANOMALY = 0, 1
_NAMES = ('normal', 'anomaly')
_COLORS = ((0, 0, 0), (255, 102, 0))
_PLAIN = ClassMap(_NAMES, _COLORS, {0: NORMAL, 1: ANOMALY, 255: IGNORED})
CLASS_MAPS = {
    'road_anomaly_dev': ClassMap(_NAMES, _COLORS, {0: NORMAL, 2: ANOMALY}),
    'road_obstacle_dev': _PLAIN,
    'lost_and_found_dev': _PLAIN,
    'pasted': _PLAIN,
}
# The labels of this set are the road and what stands on it already.
GROUND_ONLY = ('road_obstacle_dev',)


def load_anomaly_set(name: str, root: Path) -> PictureList:
    """
    List the pictures of one anomaly set.

    name: how its labels are written, a key of CLASS_MAPS. root: folder of images/ and labels/.
    Raises ConfigError for an unknown name, DataError for missing folders, pictures or labels.
    """
    if name not in CLASS_MAPS:
        raise ConfigError(f'unknown anomaly set {name!r}; known are {sorted(CLASS_MAPS)}')
    return load_folders(root / 'images', root / 'labels', CLASS_MAPS[name])
