# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
comma10k as published (github.com/commaai/comma10k): dashcam images, five classes in colours.

comma10k/
  imgs/<number>_<device>_<drive>_<segment>_<frame>.png
  masks/<the same name>.png                    RGB, see _CLASSES

Images whose names end in 9 are its makers' validation split.
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import ConfigError

from ..data.images import (
    IGNORED,
    ClassMap,
    ColouredImages,
    ImageList,
    image_list,
    list_images,
)
from .evaluation_set import SetEntry
from .layout import labels_of, need_folder

_CLASSES = (
    ('road', (64, 32, 32)),
    ('lane markings', (255, 0, 0)),
    ('undrivable', (128, 128, 96)),
    ('movable', (0, 255, 102)),
)
_OWN_CAR, _EMPTY, _WHITE = (204, 0, 255), (0, 0, 0), (255, 255, 255)
_COLORS = (
    *((color, place) for place, (_, color) in enumerate(_CLASSES)),
    *((color, IGNORED) for color in (_OWN_CAR, _EMPTY, _WHITE)),
)
CLASSES = ClassMap.of(_CLASSES)
SPLITS = ('val', 'train', 'all')


def load(root: Path, split: str) -> ImageList:
    """Load a split, all of it one sequence; ConfigError for another split."""
    if split not in SPLITS:
        raise ConfigError(f'comma10k has no split {split!r}: choose {", ".join(SPLITS)}')
    remedy = f'clone github.com/commaai/comma10k as {root}'
    images = [
        path
        for path in list_images(need_folder(root / 'imgs', remedy))
        if split in ('all', 'val' if path.stem.endswith('9') else 'train')
    ]
    labels = labels_of(images, need_folder(root / 'masks', remedy)) if images else []
    listed = image_list(images, labels, CLASSES, remedy)
    return listed.remade(ColouredImages, label_colors=_COLORS)


ENTRIES = {
    'comma10k': SetEntry(
        description='comma10k, dashcams: road, lane markings, undrivable, movable',
        title='comma10k',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('comma10k',),
        splits=SPLITS,
        licence='MIT',
    )
}
