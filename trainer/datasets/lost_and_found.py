# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
LostAndFound as published; its splits as SegmentMeIfYouCan registers them.

dataset_LostAndFound/
  leftImg8bit/{train,test}/<NN_scene>/<frame>_leftImg8bit.png (or .webp, .jpg)
  gtCoarse/{train,test}/<NN_scene>/<frame>_gtCoarse_labelIds.png   0 ignored, 1 road, 2.. object

test_no_known (1043): test without frames of empty labels and without children and bicycles.
test_valid (1186), train_valid (1030): without frames of empty labels. test (1203), train (1036).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..data.images import ANOMALY, IGNORED, NORMAL, ImageList, image_list
from .anomaly import anomaly_classes
from .evaluation_set import SetEntry
from .layout import before_last, need_count, nested_images

CLASSES = anomaly_classes(
    {0: IGNORED, 1: NORMAL, **dict.fromkeys(range(2, 201), ANOMALY), 255: IGNORED}
)
LICENCE = 'LostAndFound licence (non-commercial research)'
SOURCE = 'http://www.6d-vision.com/lostandfounddataset (leftImg8bit, gtCoarse)'
IMAGE_SUFFIX, LABEL_SUFFIX = '_leftImg8bit', '_gtCoarse_labelIds'
# Places, in the order of frame names, of the frames whose labels are empty.
_EMPTY_TRAIN = (44, 67, 88, 109, 131, 614)
_EMPTY_TEST = (17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793)
# Children, then bicycles: things that a network knows.
_KNOWN_THINGS = (
    '15_Rechbergstr_Deckenpfronn',
    '01_Hanns_Klemm_Str_45_000006',
    '01_Hanns_Klemm_Str_45_000007',
    '10_Schlossberg_9_000004',
)


@dataclass(frozen=True)
class _Split:
    """count: frames of folder (train, test) but places in `empty` and prefixes in `known`."""

    count: int
    folder: str
    empty: Collection[int] = ()
    known: tuple[str, ...] = ()


FRAMES = {'test': 1203, 'train': 1036}
SPLITS = {
    'test_no_known': _Split(1043, 'test', _EMPTY_TEST, _KNOWN_THINGS),
    'test_valid': _Split(1186, 'test', _EMPTY_TEST),
    'test': _Split(1203, 'test'),
    'train_valid': _Split(1030, 'train', _EMPTY_TRAIN),
    'train': _Split(1036, 'train'),
}


def load(root: Path, split: str) -> ImageList:
    """Load a split; a sequence is a drive. DataError unless all of its frames are there."""
    rule, remedy = SPLITS[split], f'unpack leftImg8bit and gtCoarse from {SOURCE} there'
    folder = root / 'leftImg8bit' / rule.folder
    frames = sorted(nested_images(folder, remedy), key=frame_name)
    need_count(frames, FRAMES[rule.folder], f'LostAndFound {rule.folder}', folder)
    chosen = [
        path
        for place, path in enumerate(frames)
        if place not in rule.empty and not frame_name(path).startswith(rule.known or ('/',))
    ]
    need_count(chosen, rule.count, f'LostAndFound {split}', folder)
    names, truth = [frame_name(path) for path in chosen], root / 'gtCoarse' / rule.folder
    labels = [
        truth / path.parent.name / f'{name}{LABEL_SUFFIX}.png'
        for path, name in zip(chosen, names, strict=True)
    ]
    return image_list(chosen, labels, CLASSES, remedy, names, before_last(names))


def frame_name(path: Path) -> str:
    """Return a frame's name, without the suffix that says that it is the left image."""
    return path.stem.removesuffix(IMAGE_SUFFIX)


ENTRIES = {
    'smiyc_lost_and_found': SetEntry(
        description='SegmentMeIfYouCan LostAndFound (obstacles on the road)',
        title='LostAndFound',
        kind='anomaly',
        images=load,
        folders=('dataset_LostAndFound', 'lost_and_found', 'LostAndFound'),
        splits=tuple(SPLITS),
        roi='road',
        track='LostAndFound',
        licence=LICENCE,
    )
}
