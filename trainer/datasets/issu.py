# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
ISSU: Indian streets with 19 known classes and anomalies, single pictures and short films.

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
normal, other classes are ignored). Pictures without a label file belong to films and are left out.
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import DataError

from ..data.images import ANOMALY, IGNORED, NORMAL, ClassMap, PictureList, list_pictures
from . import cityscapes
from .anomaly import anomaly_classes
from .evaluation_set import EvaluationSet, SetEntry
from .layout import need_count, nested_pictures, picture_list

_ANOMALY_ID, _KNOWN = 254, range(19)
CLASSES = ClassMap(
    cityscapes.CLASSES.names,
    cityscapes.CLASSES.colors,
    {**{index: index for index in _KNOWN}, _ANOMALY_ID: IGNORED, 255: IGNORED},
)
ANOMALIES = anomaly_classes({**dict.fromkeys(_KNOWN, NORMAL), _ANOMALY_ID: ANOMALY, 255: IGNORED})
OBSTACLES = anomaly_classes(
    {0: NORMAL, **dict.fromkeys(_KNOWN[1:], IGNORED), _ANOMALY_ID: ANOMALY, 255: IGNORED}
)
LICENCE = "IDD's terms for its pictures; labels: see its makers"
SOURCE = 'https://github.com/vojirt/benchmark_issu (benchmark/datasets/scripts/DOWNLOAD.md)'
_IMAGE, _LABEL = '_leftImg8bit', '_gtFine_csT'
_TESTS = {
    'test_static': ('ISSU-Test-Static', 'static_', 980),
    'test_temporal': ('ISSU-Test-Temporal', 'temporal_', 1138),
}
SPLITS = (*_TESTS, 'val', 'train')


def load(root: Path, split: str) -> PictureList:
    """Load one split with the known classes, anomalies IGNORED; a folder is a sequence."""
    return _load(root, split, CLASSES)


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open one split in the anomaly protocol, with known classes; a test part must be whole."""
    anomalies, known = _load(root, split, ANOMALIES), load(root, split)
    name, title = f'issu/{split}', f'ISSU {split.replace("_", " ")}'
    return EvaluationSet(
        name, title, anomalies, 'anomaly', 'image', LICENCE, SOURCE, classes=known
    )


def load_obstacle_set(root: Path, split: str) -> EvaluationSet:
    """Open one split in the obstacle protocol: road and anomalies alone."""
    name, title = f'issu_obstacle/{split}', f'ISSU {split.replace("_", " ")}, road'
    obstacles = _load(root, split, OBSTACLES)
    return EvaluationSet(name, title, obstacles, 'anomaly', 'road', LICENCE, SOURCE)


def _load(root: Path, split: str, classes: ClassMap) -> PictureList:
    if split not in SPLITS:
        raise DataError(f'ISSU has no split {split!r}; it has {", ".join(SPLITS)}')
    if split in _TESTS and (root / 'labels_masks').is_dir():
        return _converted(root, split, classes)
    return _composed(root, split, classes)


def _converted(root: Path, split: str, classes: ClassMap) -> PictureList:
    """List the flat folders of the convert script."""
    _, prefix, count = _TESTS[split]
    labels = root / 'labels_masks'
    listed = [path for path in list_pictures(labels) if path.name.startswith(prefix)]
    need_count(listed, count, f'ISSU {split}', labels)
    return picture_list(
        _pictures([root / 'images' / path.name for path in listed]),
        lambda path: labels / path.name,
        classes,
        'run convert_idd_data.py of its makers anew',
        sequence_of=lambda path: path.stem.rpartition('_')[0],
    )


def _composed(root: Path, split: str, classes: ClassMap) -> PictureList:
    """List the folders of the compose script."""
    name, _, count = _TESTS.get(split, ('ISSU-Train', '', 0))
    part = 'test' if split in _TESTS else split
    base = root / name
    remedy = f'get the labels and compose the pictures as {SOURCE} says'
    listed = nested_pictures(base / 'gtFine_csT' / part, remedy)
    if count:
        need_count(listed, count, f'ISSU {split}', base / 'gtFine_csT' / part)
    images = base / 'leftImg8bit' / part
    pictures = [images / p.parent.name / f'{_frame(p, _LABEL)}{_IMAGE}.png' for p in listed]
    return picture_list(
        _pictures(pictures),
        lambda path: (
            base / 'gtFine_csT' / part / path.parent.name / f'{_frame(path, _IMAGE)}{_LABEL}.png'
        ),
        classes,
        remedy,
        lambda path: f'{path.parent.name}_{_frame(path, _IMAGE)}',
        lambda path: path.parent.name,
    )


def _pictures(paths: list[Path]) -> list[Path]:
    """Return the pictures of the label files; DataError naming the first that is missing."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(paths)} pictures are missing, the first is {missing[0]}; '
            f'compose them as {SOURCE} says'
        )
    return paths


def _frame(path: Path, suffix: str) -> str:
    return path.stem.removesuffix(suffix)


_FOLDERS = ('ISSU_datasets', 'dataset_ISSUTrack', 'issu', 'ISSU')
ENTRIES = {
    'issu': SetEntry(
        'ISSU, Indian streets and films; anomalies and 19 known classes',
        load_set,
        _FOLDERS,
        SPLITS,
        __doc__ or '',
    ),
    'issu_obstacle': SetEntry(
        'ISSU, the road alone: obstacle protocol',
        load_obstacle_set,
        _FOLDERS,
        SPLITS,
        __doc__ or '',
    ),
}
