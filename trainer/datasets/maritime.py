# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A hundred labelled sea images (OASIs, github.com/yezehao/BDL-based-semantic-segmentation), day
and night, split by scene, and five images more (github.com/bborja/wasr_network).

maritime/
  images/type{1,3}_<number>.jpg     512 x 384; 1 by day, 3 by night
  labels/type{1,3}_<number>.png     0 obstacle and environment, 1 water, 2 sky
maritime_samples/
  images/example_<number>.jpg       512 x 384, from a boat
  predicted/example_<number>.png    what another network saw, in colours: not ground truth
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import ConfigError

from ..data.images import (
    ClassMap,
    ColouredImages,
    ImageList,
    image_list,
    list_images,
    need_files,
)
from .evaluation_set import SetEntry
from .lars import CLASSES as LARS

# The names and the order of LaRS, so that a head fitted here is measured there.
CLASSES = ClassMap(LARS.names, LARS.colors, {0: 0, 1: 1, 2: 2})
SAMPLE_COLORS = (((246, 193, 59), 0), ((51, 168, 222), 1), ((69, 78, 161), 2))
# Images of one place, ship or voyage, put together by looking at all of them: file numbers, by
# type. A scene whole belongs to one split, so that nothing is judged on what it was fitted on.
SCENES: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    'train': {
        'bay': ('type1', (2, 3, *range(42, 52), 61, 62)),
        'fishing_boats': ('type1', (*range(52, 58), 59, 60)),
        'bridge': ('type1', (8,)),
        'squall': ('type1', (9, 10)),
        'orange_tanker': ('type1', tuple(range(16, 24))),
        'dredger': ('type1', tuple(range(37, 42))),
        'night_tanker': ('type3', tuple(range(4, 11))),
        'night_pilot': ('type3', tuple(range(16, 28))),
    },
    'val': {
        'clear_sky': ('type1', (4, 5, 6, 7)),
        'islands': ('type1', (1, 35, 36, 63, 64, 65)),
        'red_tug': ('type1', tuple(range(24, 30))),
        'dusk': ('type3', (28, 29)),
        'night_tow': ('type3', tuple(range(30, 37))),
    },
    'test': {
        'breakwater': ('type1', (*range(11, 16), 58)),
        'red_tanker': ('type1', tuple(range(30, 35))),
        'night_far': ('type3', (1, 2, 3)),
        'night_lit_deck': ('type3', tuple(range(11, 16))),
    },
}


def load(root: Path, split: str) -> ImageList:
    """Load one split, or all of them with 'all'; the sequence of an image is its scene."""
    if split not in (*SCENES, 'all'):
        raise ConfigError(f'maritime has no split {split!r}: choose {", ".join(SCENES)} or all')
    chosen = tuple(SCENES) if split == 'all' else (split,)
    members = {
        f'{kind}_{number:03d}': scene
        for name in chosen
        for scene, (kind, numbers) in SCENES[name].items()
        for number in numbers
    }
    images = [root / 'images' / f'{name}.jpg' for name in members]
    what = f'images of split {split}'
    need_files(images, what, 'for images of your own take the layout "folders"')
    labels = [root / 'labels' / f'{name}.png' for name in members]
    return image_list(images, labels, CLASSES, sequences=[*members.values()])


def load_samples(root: Path, _: str) -> ImageList:
    """Load the five images; their labels are another network's answer."""
    images = list_images(root / 'images')
    labels = [root / 'predicted' / f'{path.stem}.png' for path in images]
    listed = image_list(images, labels, CLASSES)
    return listed.remade(ColouredImages, label_colors=SAMPLE_COLORS)


ENTRIES = {
    'maritime': SetEntry(
        description='sea by day and night, split by scene: obstacle, water, sky',
        title='Sea images,',
        kind='maritime',
        images=load,
        layout=load,
        folders=('maritime',),
        splits=('test', 'val', 'train', 'all'),
        licence='OASIs by way of yezehao/BDL-based-semantic-segmentation; no data licence stated',
    ),
    'maritime_samples': SetEntry(
        description="five images from a boat with another network's answer",
        title="Boat's images, against another network's answer",
        kind='maritime',
        images=load_samples,
        folders=('maritime_samples',),
        licence='bborja/wasr_network, Apache-2.0',
    ),
}
