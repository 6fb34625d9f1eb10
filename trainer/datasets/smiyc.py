# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
SegmentMeIfYouCan: AnomalyTrack (RoadAnomaly21) and ObstacleTrack (RoadObstacle21), as published.

dataset_AnomalyTrack/
  images/<name>.jpg                                100 test, 10 validation (validation*)
  labels_masks/<name>_labels_semantic.png          validation only: 0, 1 anomaly, 255 void
dataset_ObstacleTrack/
  images/<scene>_<number>.webp                     327 test, 55 snow, 30 night, 30 validation
  labels_masks/<scene>_<number>_labels_semantic.png  validation only: 0 road, 1 obstacle, 255

Test labels are with the benchmark. The splits are those of its registration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..data.images import ImageList, image_list, list_images
from .anomaly import PLAIN
from .evaluation_set import SetEntry
from .layout import need_count

SOURCE = 'https://segmentmeifyoucan.com/datasets'
_SNOW, _NIGHT, _VALIDATION = ('snowstorm1', 'snowstorm2'), ('driveway',), ('validation',)
_TEST = (
    'curvy-street',
    'one-way-street',
    'gravel',
    'greyasphalt',
    'motorway',
    'paving',
    'darkasphalt',
    'darkasphalt2',
)
# The benchmark leaves these files of the validation scene out.
_LEFT_OUT = tuple(f'validation_{number}' for number in (19, *range(21, 30)))


@dataclass(frozen=True)
class _Split:
    """Which images belong to a split, how many it has (0 = not fixed), labels or not."""

    holds: Callable[[str], bool]
    count: int
    labelled: bool = False


def _scenes(*scenes: str) -> Callable[[str], bool]:
    return lambda name: name.split('_')[0] in scenes


ANOMALY_SPLITS = {
    'validation': _Split(lambda name: name.startswith('validation'), 10, labelled=True),
    'test': _Split(lambda name: not name.startswith('validation'), 100),
    'all': _Split(lambda _: True, 110),
}
OBSTACLE_SPLITS = {
    'validation': _Split(
        lambda name: _scenes(*_VALIDATION)(name) and not name.startswith(_LEFT_OUT),
        30,
        labelled=True,
    ),
    'test': _Split(_scenes(*_TEST), 327),
    'no_night': _Split(_scenes(*_TEST, *_SNOW), 382),
    'snowstorm': _Split(_scenes(*_SNOW), 55),
    'night': _Split(_scenes(*_NIGHT), 30),
    'all': _Split(_scenes(*_TEST, *_SNOW, *_NIGHT, *_VALIDATION), 0),
}


# track -> its name among the benchmark's recordings, its splits, its region of interest
TRACKS = {
    'AnomalyTrack': ('RoadAnomaly21', ANOMALY_SPLITS, 'image'),
    'ObstacleTrack': ('RoadObstacle21', OBSTACLE_SPLITS, 'road'),
}


def load(root: Path, split: str, track: str) -> ImageList:
    """
    Load a split of a track; DataError unless all of its images are there.

    The names of ObstacleTrack begin with the scene, a sequence.
    """
    folder, labels, rule = root / 'images', root / 'labels_masks', TRACKS[track][1][split]
    images = [path for path in list_images(folder) if rule.holds(path.stem)]
    if rule.count or not images:
        need_count(images, rule.count, f'SMIYC {track} {split}', folder)
    scenes = [path.stem.split('_')[0] for path in images]
    return image_list(
        images,
        [labels / f'{p.stem}_labels_semantic.png' for p in images] if rule.labelled else [],
        PLAIN,
        f'unpack the track from {SOURCE} anew',
        sequences=scenes if track == 'ObstacleTrack' else (),
    )


ENTRIES = {
    name: SetEntry(
        description=f'SegmentMeIfYouCan {track} ({recorded_as})',
        title=f'SMIYC {track}',
        kind='anomaly',
        images=partial(load, track=track),
        folders=(f'dataset_{track}', name),
        splits=tuple(splits),
        roi=roi,
        track=track,
        licence='see its site; images of several licences',
    )
    for track, (recorded_as, splits, roi) in TRACKS.items()
    for name in [f'smiyc_{track.removesuffix("Track").lower()}']
}
