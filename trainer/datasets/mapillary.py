# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Mapillary Vistas as published, version 1.2 or 2.0; classes, names and colours are its config's.

mapillary_vistas/                                       version 1.2
  config.json
  {training,validation}/labels/<name>.png               palette of class ids
mapillary_vistas/                                       version 2.0, holds 1.2 as well
  config_v1.2.json, config_v2.0.json
  {training,validation}/{v1.2,v2.0}/labels/<name>.png
both:
  {training,validation,testing}/images/<name>.jpg

'mapillary/validation' takes the labels of version 1.2, 'mapillary/validation_v2.0' those of 2.0.
Classes that the config does not evaluate are IGNORED.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError

from ..data.images import IGNORED, ClassMap, ImageList, image_list, list_images
from .evaluation_set import SetEntry

SOURCE = 'https://www.mapillary.com/dataset/vistas'
SPLITS = ('validation', 'training', 'testing', 'validation_v2.0', 'training_v2.0')


def load(root: Path, split: str) -> ImageList:
    """Load one split; DataError for a missing config, folder or label file."""
    if split not in SPLITS:
        raise DataError(f'Mapillary Vistas has no split {split!r}; it has {", ".join(SPLITS)}')
    part, _, version = split.partition('_v')
    config, labels = _version(root, part, version or '1.2')
    images = list_images(root / part / 'images')
    return image_list(
        images,
        [labels / f'{path.stem}.png' for path in images] if part != 'testing' else [],
        load_classes(config),
        f'unpack Mapillary Vistas from {SOURCE} anew',
    )


def load_classes(path: Path) -> ClassMap:
    """Read names, colours and which classes count from the set's config."""
    try:
        content: Any = json.loads(path.read_text(encoding='utf-8'))
        entries = [
            (
                str(label['readable']),
                tuple(int(v) for v in label['color']),
                bool(label['evaluate']),
            )
            for label in content['labels']
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path} cannot be read as Mapillary Vistas config: {error!r}') from error
    ids, names, colors = {}, [], []
    for file_id, (name, (red, green, blue), evaluated) in enumerate(entries):
        ids[file_id] = len(names) if evaluated else IGNORED
        if evaluated:
            names.append(name)
            colors.append((red, green, blue))
    return ClassMap(tuple(names), tuple(colors), ids)


def _version(root: Path, part: str, version: str) -> tuple[Path, Path]:
    """Return the config and the folder of labels of a version."""
    config = root / f'config_v{version}.json'
    if config.is_file():
        return config, root / part / f'v{version}' / 'labels'
    if version == '1.2' and (root / 'config.json').is_file():
        return root / 'config.json', root / part / 'labels'
    raise DataError(
        f'{config} does not exist; unpack Mapillary Vistas {version} from {SOURCE} in {root}'
    )


ENTRIES = {
    'mapillary': SetEntry(
        description='Mapillary Vistas, streets of the world',
        title='Mapillary Vistas',
        kind='closed-set',
        images=load,
        layout=load,
        folders=('mapillary_vistas', 'mapillary', 'mapillary-vistas'),
        splits=SPLITS,
        licence='Mapillary Vistas research licence (non-commercial); CC BY-NC-SA 4.0',
    )
}
