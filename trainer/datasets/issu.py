# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
ISSU: Indian streets with 19 known classes and anomalies, single images and short films.

ISSU_datasets/                          as its makers' compose script leaves it:
  ISSU-Train/leftImg8bit/{train,val}/<folder>/<frame>_leftImg8bit.png
  ISSU-Train/gtFine_csT/{train,val}/<folder>/<frame>_gtFine_csT.png
  {ISSU-Test-Static,ISSU-Test-Temporal}/leftImg8bit/test/<folder>/<frame>_leftImg8bit.png
  {ISSU-Test-Static,ISSU-Test-Temporal}/gtFine_csT/test/<folder>/<frame>_gtFine_csT.png
dataset_ISSUTrack/                      or as their convert script leaves the test parts:
  images/{static,temporal}_<folder>_<frame>.png
  labels_masks/{static,temporal}_<folder>_<frame>.png

Label ids are Cityscapes' train ids 0..18, 254 anomaly, 255 ignored. 'issu' is their anomaly
protocol (all known classes are normal), 'issu_obstacle' their obstacle protocol (road 0 is
normal, other classes are ignored). Images without a label file belong to films and are left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import (
    ANOMALY,
    IGNORED,
    NORMAL,
    ClassMap,
    ImageList,
    image_list,
    list_images,
    need_files,
)
from . import cityscapes
from .anomaly import anomaly_classes
from .evaluation_set import More, SetEntry
from .layout import before_last, need_count, nested_images, of_folders

_ANOMALY_ID, _KNOWN = 254, range(19)
CLASSES = ClassMap.of(
    zip(cityscapes.CLASSES.names, cityscapes.CLASSES.colors, strict=True),
    ignored=(_ANOMALY_ID, 255),
)
ANOMALIES = anomaly_classes({**dict.fromkeys(_KNOWN, NORMAL), _ANOMALY_ID: ANOMALY, 255: IGNORED})
OBSTACLES = anomaly_classes(
    {0: NORMAL, **dict.fromkeys(_KNOWN[1:], IGNORED), _ANOMALY_ID: ANOMALY, 255: IGNORED}
)
SOURCE = 'https://github.com/vojirt/benchmark_issu (benchmark/datasets/scripts/DOWNLOAD.md)'
_COMPOSE = f'compose them as {SOURCE} says'
_IMAGE, _LABEL = '_leftImg8bit', '_gtFine_csT'
_TESTS = {
    'test_static': ('ISSU-Test-Static', 'static_', 980),
    'test_temporal': ('ISSU-Test-Temporal', 'temporal_', 1138),
}
SPLITS = (*_TESTS, 'val', 'train')


def load(root: Path, split: str, classes: ClassMap = CLASSES) -> ImageList:
    """
    Load one split, by default with the known classes, anomalies IGNORED; a folder is a sequence.

    DataError for a test part that is not whole.
    """
    if split not in SPLITS:
        raise DataError(f'ISSU has no split {split!r}; it has {", ".join(SPLITS)}')
    if split in _TESTS and (root / 'labels_masks').is_dir():
        return _converted(root, split, classes)
    return _composed(root, split, classes)


def _converted(root: Path, split: str, classes: ClassMap) -> ImageList:
    """List the flat folders of the convert script."""
    _, prefix, count = _TESTS[split]
    labels = root / 'labels_masks'
    listed = [path for path in list_images(labels) if path.name.startswith(prefix)]
    need_count(listed, count, f'ISSU {split}', labels)
    images = [root / 'images' / path.name for path in listed]
    need_files(images, 'images', _COMPOSE)
    sequences = before_last(path.stem for path in images)
    remedy = 'run convert_idd_data.py of its makers anew'
    return image_list(images, listed, classes, remedy, sequences=sequences)


def _composed(root: Path, split: str, classes: ClassMap) -> ImageList:
    """List the folders of the compose script."""
    name, _, count = _TESTS.get(split, ('ISSU-Train', '', 0))
    part = 'test' if split in _TESTS else split
    base = root / name
    remedy = f'get the labels and compose the images as {SOURCE} says'
    listed = nested_images(base / 'gtFine_csT' / part, remedy)
    if count:
        need_count(listed, count, f'ISSU {split}', base / 'gtFine_csT' / part)
    frames = [path.stem.removesuffix(_LABEL) for path in listed]
    folders = of_folders(listed)
    places = [f'{place}/{frame}' for place, frame in zip(folders, frames, strict=True)]
    images = [base / 'leftImg8bit' / part / f'{place}{_IMAGE}.png' for place in places]
    need_files(images, 'images', _COMPOSE)
    names = [place.replace('/', '_') for place in places]
    return image_list(images, listed, classes, remedy, names, folders)


def _entry(name: str, classes: ClassMap, more: More, roi: str) -> SetEntry:
    """Return the row of one protocol."""
    return SetEntry(
        description=f'ISSU, {name}',
        title='',
        kind='anomaly',
        images=partial(load, classes=classes),
        layout=load if roi == 'image' else None,
        more=more,
        folders=('ISSU_datasets', 'dataset_ISSUTrack', 'issu', 'ISSU'),
        splits=SPLITS,
        roi=roi,
        licence="IDD's terms for its images; labels: see its makers",
    )


def _title(split: str) -> str:
    return f'ISSU {split.replace("_", " ")}'


ENTRIES = {
    'issu': _entry(
        'Indian streets and films; anomalies and 19 known classes',
        ANOMALIES,
        lambda root, split, _: {'title': _title(split), 'classes': load(root, split)},
        roi='image',
    ),
    'issu_obstacle': _entry(
        'the road alone: obstacle protocol',
        OBSTACLES,
        lambda _, split, __: {'title': f'{_title(split)}, road'},
        roi='road',
    ),
}
