# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Plain folders: one of pictures, one of label PNGs of the same names, and a YAML class map.

<folder>/
  classes.yaml              classes: [{name, color, ids}, ...], ignored: [ids]
  <split>/images/<name>.jpg (or .png, .webp, ...)
  <split>/labels/<name>.png

'folders/<split>=<folder>'; without a split, images/ and labels/ lie beside classes.yaml.
"""

from __future__ import annotations

from pathlib import Path

from ..data import ClassMap, PictureList, list_pictures, load_class_map, paired
from .evaluation_set import EvaluationSet, SetEntry


def load_folders(images: Path, labels: Path, classes: ClassMap) -> PictureList:
    """
    Pair `images`/<name>.* with `labels`/<name>.png.

    The sequence of a picture is its name up to the last '_', or '' where there is none.
    Raises DataError for missing folders, no pictures or missing labels.
    """
    pictures = list_pictures(images)
    files = [labels / f'{path.stem}.png' for path in pictures]
    sequences = [path.stem.rpartition('_')[0] for path in pictures]
    return paired(pictures, files, sequences, classes)


def load(root: Path, split: str) -> PictureList:
    """Load `root`/[`split`/]{images,labels} with the class map `root`/classes.yaml."""
    classes = load_class_map(root / 'classes.yaml')
    return load_folders(root / split / 'images', root / split / 'labels', classes)


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open one split of somebody's own pictures for evaluation."""
    title, pictures = f'{root.name} {split}'.strip(), load(root, split)
    return EvaluationSet(
        f'folders/{split}'.rstrip('/'), title, pictures, 'closed-set', 'image', 'your own'
    )


ENTRY = SetEntry(
    'your own pictures with a YAML class map: folders/<split>=<folder>',
    load_set,
    ('folders',),
    (),
    __doc__ or '',
)
