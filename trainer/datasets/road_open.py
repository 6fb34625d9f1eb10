# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Roads of three sources whose images may be used commercially, and their splits.

The three folders lie beside each other; the first names the place. Brazil's labels know the own
lane alone: whatever else is there is ignored, never "not road". Potholes are ignored, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from ood_perception.errors import ConfigError, DataError

from ..data.images import (
    IGNORED,
    ClassMap,
    ImageList,
    UInt8Array,
    image_list,
    list_images,
    read_image,
)
from ..data.splits import split_contiguous
from .files import labels_of

ROAD, OTHER = 0, 1
CLASSES = ClassMap.of((('Road', (128, 64, 128)), ('Other', (70, 130, 180))))
POLYGONS = Path(__file__).parent / 'labels' / 'carnd_highway.json'
BRAZIL, CARND, COMMA = 'brazil_highways', 'carnd_highway', 'comma10k_few'
SOURCES = (BRAZIL, CARND, COMMA)
_IDS = {
    BRAZIL: {0: ROAD, 1: ROAD, 2: IGNORED, 255: IGNORED},
    CARND: {ROAD: ROAD, OTHER: OTHER, IGNORED: IGNORED},
    COMMA: {0: ROAD, 1: ROAD, 2: OTHER, 3: OTHER, 4: IGNORED, 255: IGNORED},
}
# Whole highways; of the other sources, which have few drives, the last quarter of each drive.
_HELD_OUT_ROADS = ('DF060', 'ES259')
# Of a survey's frames, metres apart and alike, every third is taken; 'dense' has all of them, for
# a network of its own to train on, and none of 'val'.
_THINNED = 3
# With one source left out of fit and calibration: what happens on a road that nobody has seen.
WITHOUT = {f'without_{source}': source for source in SOURCES}
DENSE = 'dense'
SPLITS = ('train', 'val', 'all', DENSE, *SOURCES, *WITHOUT, *(f'{name}_val' for name in WITHOUT))


@dataclass(frozen=True)
class RoadImages(ImageList):
    """Images of several sources; the source is the first part of a sequence's name."""

    def file_ids(self, index: int) -> UInt8Array:
        """Return the classes of one image as its source's labels say, uint8 (H, W)."""
        source = self.sequences[index].partition('/')[0]
        if source == CARND:
            height, width = read_image(self.images[index]).shape[:2]
            return painted(self.images[index].stem, (height, width))
        table = ClassMap(CLASSES.names, CLASSES.colors, _IDS[source]).table()
        known = table[super().file_ids(index)]
        if (known < 0).any():
            raise DataError(f'{self.labels[index]} holds ids that {source} does not have')
        return known.astype(np.uint8)


@cache
def polygons() -> dict[str, dict[str, list[list[list[float]]]]]:
    """Return image name -> class in small letters -> polygons, corners x, y in [0, 1]."""
    return json.loads(POLYGONS.read_text())


def painted(name: str, size: tuple[int, int]) -> UInt8Array:
    """Return an image's polygons as classes, uint8 (H, W), 255 where nobody has drawn any."""
    height, width = size
    labels = np.full(size, IGNORED, np.uint8)
    for place in (OTHER, ROAD):
        for corners in polygons()[name][CLASSES.names[place].lower()]:
            points = np.round(np.array(corners) * [width, height]).astype(np.int32)
            cv2.fillPoly(labels, [points], place)
    return labels


def load(root: Path, split: str) -> ImageList:
    """
    Load a split, or the whole of one source; a sequence is '<source>/<drive>'.

    root: the first folder; the others lie beside it. Raises ConfigError for another split,
    DataError for a missing folder or label.
    """
    if split not in SPLITS:
        raise ConfigError(f'road_open has no split {split!r}: choose {", ".join(SPLITS)}')
    if split in SOURCES:
        return _source(root.parent / split, split)
    left_out = WITHOUT.get(split.removesuffix('_val'))
    part = split if left_out is None else 'val' if split.endswith('_val') else 'train'
    chosen = [source for source in SOURCES if source != left_out]
    lists = [_split(_source(root.parent / source, source), source, part) for source in chosen]
    fields = ('names', 'images', 'labels', 'sequences')
    joined = {field: tuple(chain(*(getattr(x, field) for x in lists))) for field in fields}
    return RoadImages(**joined, classes=CLASSES)


def _source(folder: Path, source: str) -> ImageList:
    """Return all labelled images of one source."""
    images = list_images(folder / 'images')
    if source == CARND:
        images = [path for path in images if path.stem in polygons()]
    labels = [POLYGONS] * len(images) if source == CARND else labels_of(images, folder / 'labels')
    drives = ['' if source == COMMA else path.stem.rpartition('_')[0] for path in images]
    names = [f'{source}_{path.stem}' for path in images]
    sequences = [f'{source}/{drive}' for drive in drives]
    made = image_list(images, labels, CLASSES, names=names, sequences=sequences)
    return made.remade(RoadImages)


def _split(images: ImageList, source: str, split: str) -> ImageList:
    """Return what of a source belongs to a split; 'val' is never fitted on."""
    if source == BRAZIL and split != DENSE:
        images = images.subset(range(0, len(images), _THINNED))
    if split == 'all':
        return images
    if source != BRAZIL:
        return split_contiguous(images)[split == 'val']
    held_out = [s.rpartition('/')[2] in _HELD_OUT_ROADS for s in images.sequences]
    return images.subset([i for i, out in enumerate(held_out) if out == (split == 'val')])
