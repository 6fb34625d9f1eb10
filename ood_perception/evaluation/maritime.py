# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A sea set from a bundle's detections: labels of water, sky and obstacle, as LaRS measures them.

The prediction is the bundle's label map; a flagged pixel counts as obstacle, whatever its label.
Sets without segments of single obstacles get them from their labels (plain_segments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np

from ..bundle.manifest import Manifest
from ..errors import ConfigError, DataError
from ..image.geometry import to_camera_nearest
from ..metrics.bootstrap import RESAMPLES, resample_weights
from ..metrics.lars import (
    DYNAMIC_OBSTACLES,
    OBSTACLE,
    SKY,
    STATIC_OBSTACLE,
    WATER,
    LarsFrame,
    lars_frame,
    lars_metrics,
    lars_samples,
    with_obstacles,
)
from ..settings import class_ids
from ..types import Detection, JsonDict, UInt8Array
from .record import Arrays, RecordSet
from .results import group_record

_MOST_SEGMENTS = 0xFFFF


@dataclass(frozen=True)
class SeaClasses:
    """Which of the bundle's classes are water and which are sky; all others are obstacles."""

    water: tuple[str, ...] = ('Water', 'water')
    sky: tuple[str, ...] = ('Sky', 'sky')

    def table(self, manifest: Manifest) -> UInt8Array:
        """Return uint8 (256,): class of the bundle -> OBSTACLE, WATER, SKY; else ConfigError."""
        table = np.full(256, OBSTACLE, np.uint8)
        names = [spec.name for spec in manifest.classes]
        for value, wanted in ((WATER, self.water), (SKY, self.sky)):
            chosen = [name for name in wanted if name in names]
            if not chosen:
                raise ConfigError(
                    f'none of {list(wanted)} is a class of bundle {manifest.name}, which knows '
                    f'{names}: name its water and sky with --water and --sky'
                )
            table[class_ids(manifest, chosen, 'water and sky')] = value
        return table


@dataclass(frozen=True)
class Segments:
    """
    The single obstacles of one image, in the form of LaRS.

    panoptic: uint8 (H, W, 3) RGB; a segment's number is R + 256 G + 65536 B and R its category.
    categories: number -> category of every segment.
    """

    panoptic: UInt8Array
    categories: Mapping[int, int]


def sea_labels(detection: Detection, table: UInt8Array) -> UInt8Array:
    """Return uint8 (H, W) of OBSTACLE, WATER, SKY at the image's size; table: SeaClasses."""
    cells = with_obstacles(table[detection.labels], detection.mask)
    return to_camera_nearest(cells, detection.geometry)


def plain_segments(semantic: UInt8Array) -> Segments:
    """
    Tell single obstacles from the shore by the labels alone.

    semantic: uint8 (H, W), OBSTACLE, WATER, SKY, IGNORED. An 8-connected piece of obstacle that
    touches nothing but water (or ignored pixels) is a dynamic obstacle; one that touches the sky
    is a static one, as the shore is: a ship on the horizon, too. Raises DataError for more
    single obstacles (65 535) than numbers can tell apart.
    """
    obstacle = (semantic == OBSTACLE).astype(np.uint8)
    count, pieces = cv2.connectedComponents(obstacle, connectivity=8)
    # What touches the sky: the pieces that a border of the sky, one pixel wide, runs over.
    sky = cv2.dilate((semantic == SKY).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    static = np.zeros(count, bool)
    static[np.unique(pieces[sky])] = True
    panoptic = np.zeros((*semantic.shape, 3), np.uint8)
    panoptic[(obstacle > 0) & static[pieces], 0] = STATIC_OBSTACLE
    single = (obstacle > 0) & ~static[pieces]
    category = DYNAMIC_OBSTACLES[0]
    # Only single obstacles are numbered: a number has two bytes, R is the category.
    places = np.flatnonzero(~static[1:]) + 1
    if len(places) > _MOST_SEGMENTS:
        raise DataError(
            f'the labels have {len(places)} single obstacles, segments can tell '
            f'{_MOST_SEGMENTS} apart: labels so full of specks are noise, clean or resize them'
        )
    order = np.zeros(count, np.int32)
    order[places] = np.arange(1, len(places) + 1)
    panoptic[single, 0] = category
    panoptic[single, 1] = order[pieces[single]] & 255
    panoptic[single, 2] = order[pieces[single]] >> 8
    numbers = category + 256 * np.arange(1, len(places) + 1)
    return Segments(panoptic, dict.fromkeys(numbers.tolist(), category))


def maritime_counts(
    detection: Detection, semantic: UInt8Array, segments: Segments | None, table: UInt8Array
) -> Arrays:
    """Return LaRS counts, 'lars' int64 (15,); semantic: uint8 (H, W). None = plain_segments."""
    given = segments or plain_segments(semantic)
    prediction = sea_labels(detection, table)
    frame = lars_frame(prediction, semantic, given.panoptic, given.categories)
    return {'lars': np.hstack([getattr(frame, field.name) for field in fields(frame)])}


def read_frames(records: RecordSet) -> list[LarsFrame]:
    """Return the counts (maritime_counts) of every image."""
    rows = [arrays['lars'] for arrays in records]  # two of the fields are per class
    return [LarsFrame(row[:3], row[3:6], *map(int, row[6:])) for row in rows]


def maritime_summary(records: RecordSet, segments: bool, seed: int = 0) -> JsonDict:
    """Return all that is reported of a sea set; segments: whether it has some of its own."""
    frames = read_frames(records)
    samples = lars_samples(frames, resample_weights(len(records), RESAMPLES, seed))
    facts = {
        'obstacles': sum(frame.found + frame.missed for frame in frames),
        'found': sum(frame.found for frame in frames),
        'false_alarms': sum(frame.alarms for frame in frames),
        'segments': 'labelled' if segments else 'made of the labels',
    }
    return {
        'groups': {'maritime': group_record(lars_metrics(frames), samples, len(frames), facts)},
        'images': [
            {'name': kept.name, 'sequence': kept.sequence, **_image_row(frame)}
            for kept, frame in zip(records.kept, frames, strict=True)
        ],
    }


def _image_row(frame: LarsFrame) -> JsonDict:
    obstacles = frame.found + frame.missed
    present = frame.unions > 0
    iou = frame.intersections[present] / frame.unions[present]
    return {
        'objects': obstacles,
        'objects_found': frame.found,
        'anomaly_missed': frame.missed / obstacles if obstacles else None,
        'normal_flagged': frame.water_alarms / frame.water_pixels if frame.water_pixels else None,
        'false_alarms': frame.alarms,
        'mean_iou': float(iou.mean()) if iou.size else None,
    }
