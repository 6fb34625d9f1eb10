# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
ISSU: Indian streets with known classes and anomalies, in pictures and short films.

issu/
  classes.yaml                                        how its label files write the classes:
                                                      classes: [{name, color, ids}, ...] of which
                                                      one is called anomaly; ignored: [ids]
  {test_static,test_temporal,val,train}/images/[<sequence>/]<name>.jpg (or .png)
  {test_static,test_temporal,val,train}/labels/[<sequence>/]<name>.png

No stored copy of the publication shows its own tree and ids, so both are stated here and in
classes.yaml instead of being guessed: link your copy into this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ood_perception.errors import DataError

from ..data import IGNORED, ClassMap, PictureList, list_pictures, load_class_map
from .anomaly import ANOMALY, NORMAL, anomaly_classes
from .evaluation_set import EvaluationSet, SetEntry
from .layout import need_folder, nested_pictures, picture_list

LICENCE = "see the publication (arXiv:2503.22309); IDD's terms for its pictures"
SOURCE = 'arXiv:2503.22309'
_NAME = 'anomaly'


@dataclass(frozen=True)
class _Views:
    """The same label files read in two ways."""

    anomalies: ClassMap
    known: ClassMap


def load(root: Path, split: str) -> PictureList:
    """Load one split with the known classes, anomalies IGNORED."""
    return _load(root, split, _views(root).known)


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open one split with anomaly labels and known classes."""
    views = _views(root)
    anomalies, known = _load(root, split, views.anomalies), _load(root, split, views.known)
    name, title = f'issu/{split}', f'ISSU {split.replace("_", " ")}'
    return EvaluationSet(
        name, title, anomalies, 'anomaly', 'image', LICENCE, SOURCE, classes=known
    )


def _views(root: Path) -> _Views:
    """Split classes.yaml into the anomaly and the known classes."""
    path = root / 'classes.yaml'
    if not path.is_file():
        raise DataError(f'{path} does not exist: it says how the labels are written\n{__doc__}')
    stated = load_class_map(path)
    if _NAME not in stated.names:
        raise DataError(f'{path}: no class is called {_NAME!r}, it has {list(stated.names)}')
    odd = stated.names.index(_NAME)
    places = [index for index in range(len(stated.names)) if index != odd]
    into = {IGNORED: IGNORED, odd: IGNORED, **{old: new for new, old in enumerate(places)}}
    known = ClassMap(
        tuple(stated.names[index] for index in places),
        tuple(stated.colors[index] for index in places),
        {file_id: into[index] for file_id, index in stated.ids.items()},
    )
    kinds = {IGNORED: IGNORED, odd: ANOMALY}
    ids = {file_id: kinds.get(index, NORMAL) for file_id, index in stated.ids.items()}
    return _Views(anomaly_classes(ids), known)


def _load(root: Path, split: str, classes: ClassMap) -> PictureList:
    folder = need_folder(root / split / 'images', f'put the pictures of {split} there\n{__doc__}')
    filmed = any(path.is_dir() for path in folder.iterdir())
    images = nested_pictures(folder, 'put them there') if filmed else list_pictures(folder)

    def inside(path: Path) -> Path:
        return path.relative_to(folder).with_suffix('')

    return picture_list(
        images,
        lambda path: root / split / 'labels' / f'{inside(path)}.png',
        classes,
        'every picture has a label file of its name',
        lambda path: '_'.join(inside(path).parts),
        lambda path: str(inside(path).parent) if filmed else '',
    )


ENTRY = SetEntry(
    'ISSU, Indian streets, pictures and films; anomalies and known classes',
    load_set,
    ('issu', 'ISSU'),
    ('test_static', 'test_temporal', 'val', 'train'),
    __doc__ or '',
)
