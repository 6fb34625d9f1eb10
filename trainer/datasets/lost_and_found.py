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

from ..data.images import ANOMALY, IGNORED, NORMAL
from .anomaly import anomaly_classes
from .evaluation_set import EvaluationSet, SetEntry
from .layout import need_count, nested_pictures, picture_list

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
    """folder: train or test, of count frames. empty: places left out. known: prefixes left out."""

    folder: str
    count: int
    empty: Collection[int] = ()
    known: tuple[str, ...] = ()


SPLITS = {
    'test_no_known': _Split('test', 1203, _EMPTY_TEST, _KNOWN_THINGS),
    'test_valid': _Split('test', 1203, _EMPTY_TEST),
    'test': _Split('test', 1203),
    'train_valid': _Split('train', 1036, _EMPTY_TRAIN),
    'train': _Split('train', 1036),
}
COUNTS = {
    'test_no_known': 1043,
    'test_valid': 1186,
    'test': 1203,
    'train_valid': 1030,
    'train': 1036,
}


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open a split; a sequence is a drive. DataError unless all of its frames are there."""
    rule, remedy = SPLITS[split], f'unpack leftImg8bit and gtCoarse from {SOURCE} there'
    folder = root / 'leftImg8bit' / rule.folder
    frames = sorted(nested_pictures(folder, remedy), key=frame_name)
    need_count(frames, rule.count, f'LostAndFound {rule.folder}', folder)
    chosen = [
        path
        for place, path in enumerate(frames)
        if place not in rule.empty and not frame_name(path).startswith(rule.known or ('/',))
    ]
    need_count(chosen, COUNTS[split], f'LostAndFound {split}', folder)
    pictures = picture_list(
        chosen,
        lambda path: label_of(root, rule.folder, path),
        CLASSES,
        remedy,
        frame_name,
        lambda path: frame_name(path).rpartition('_')[0],
    )
    name, title = f'smiyc_lost_and_found/{split}', f'LostAndFound {split}'
    return EvaluationSet(name, title, pictures, 'anomaly', 'road', LICENCE, SOURCE, 'LostAndFound')


def frame_name(path: Path) -> str:
    """Return a frame's name, without the suffix that says that it is the left picture."""
    return path.stem.removesuffix(IMAGE_SUFFIX)


def label_of(root: Path, folder: str, image: Path) -> Path:
    """Return the label file of a picture."""
    name = f'{frame_name(image)}{LABEL_SUFFIX}.png'
    return root / 'gtCoarse' / folder / image.parent.name / name


ENTRY = SetEntry(
    'SegmentMeIfYouCan LostAndFound (obstacles on the road)',
    load_set,
    ('dataset_LostAndFound', 'lost_and_found', 'LostAndFound'),
    tuple(SPLITS),
    __doc__ or '',
)
