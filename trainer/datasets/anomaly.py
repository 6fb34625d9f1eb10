# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Plain folders with pixel labels of anomalies.

<folder>/
  images/<name>.jpg (or .png, .webp, ...)
  labels/<name>.png    0 normal, 1 anomaly, 255 ignored (road_anomaly_dev: 0 normal, 2 anomaly)

Of the development samples every third image is the part `choose`, on which choices are made, the
rest `report`. As image lists of two classes, 0 normal and 1 anomaly; pixels that are not scored
are IGNORED.
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import ConfigError

from ..data.images import ANOMALY, IGNORED, NORMAL, ClassMap, ImageList
from .evaluation_set import SetEntry
from .folders import load_folders

_NAMES = ('normal', 'anomaly')
_COLORS = ((0, 0, 0), (255, 102, 0))


def anomaly_classes(ids: dict[int, int]) -> ClassMap:
    """Return the class map of normal and anomaly for labels that are written as `ids` says."""
    return ClassMap(_NAMES, _COLORS, ids)


PLAIN = anomaly_classes({0: NORMAL, 1: ANOMALY, 255: IGNORED})
CLASS_MAPS = {
    'road_anomaly_dev': anomaly_classes({0: NORMAL, 2: ANOMALY}),
    'road_obstacle_dev': PLAIN,
    'lost_and_found_dev': PLAIN,
    'pasted': PLAIN,
}


PARTS = ('', 'choose', 'report')


def load_anomaly_set(name: str, root: Path, part: str = '') -> ImageList:
    """
    List the images of one anomaly set.

    name: how its labels are written, a key of CLASS_MAPS. root: folder of images/ and labels/.
    part: of PARTS, '' = all. Raises ConfigError for an unknown name, DataError for missing
    folders, images or labels.
    """
    if name not in CLASS_MAPS:
        raise ConfigError(f'unknown anomaly set {name!r}; known are {sorted(CLASS_MAPS)}')
    images = load_folders(root / 'images', root / 'labels', CLASS_MAPS[name])
    if not part:
        return images
    places = range(len(images))
    return images.subset([i for i in places if (i % 3 == 0) == (part == 'choose')])


UNSTATED = 'no licence stated by its makers; ask them before anything but research'
# name -> title, region of interest, track whose size limits hold for components. The makers of
# RoadAnomaly and Fishyscapes state none; the tracks are those of the same images' kind.
_DEV_SETS = {
    'road_anomaly_dev': ('RoadAnomaly, development sample', 'image', 'AnomalyTrack'),
    'road_obstacle_dev': (
        'RoadObstacle21 validation, development sample',
        'road',
        'ObstacleTrack',
    ),
    'lost_and_found_dev': (
        'Fishyscapes LostAndFound validation, development sample',
        'image',
        'LostAndFound',
    ),
    'pasted': ('road images with pasted objects', 'image', ''),
}


ENTRIES = {
    **{
        name: SetEntry(
            description=title,
            title=title,
            kind='anomaly',
            images=lambda folder, part, name=name: load_anomaly_set(name, folder, part),
            folders=(name,),
            splits=PARTS,
            roi=roi,
            track=track,
            licence=UNSTATED,
        )
        for name, (title, roi, track) in _DEV_SETS.items()
    },
    'anomaly_folders': SetEntry(
        description='your own images with labels of anomalies: images/, labels/',
        title='',
        kind='anomaly',
        images=lambda folder, _: load_folders(folder / 'images', folder / 'labels', PLAIN),
        more=lambda folder, *_: {'title': f'own anomaly set {folder.name}'},
        folders=('anomaly_folders',),
        licence='your own',
    ),
}
