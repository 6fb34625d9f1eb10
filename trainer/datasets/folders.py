# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Plain folders: one of images, one of label PNGs of the same names, and a YAML class map.

<folder>/
  classes.yaml              classes: [{name, color, ids or colors}, ...], ignored: [ids]
  <split>/images/<name>.jpg (or .png, .webp, ...)
  <split>/labels/<name>.png
  scenes.csv                optional, lines "name,scene,split": then images/ and labels/ lie
                            beside it, undivided, and the file says which split an image is in

'folders/<split>=<folder>'; without a split, images/ and labels/ lie beside classes.yaml.
Label files hold ids, or colours where the classes have `colors: [[r, g, b], ...]`.
"""

from __future__ import annotations

from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.image.image_files import label_files, tell
from ood_perception.yaml_files import read_yaml

from ..data.class_map import ClassMap, class_map_of, label_colors_of
from ..data.images import ColouredImages, ImageList, image_list, list_images
from ..data.scenes import SCENES_FILE, read_scenes
from .evaluation_set import SetEntry
from .layout import before_last, labels_of


def load_folders(images: Path, labels: Path, classes: ClassMap) -> ImageList:
    """
    Pair `images`/<name>.* with `labels`/<name>.* (PNG, BMP, TIFF or GIF).

    The sequence of an image is its name up to the last '_', or '' where there is none.
    Raises DataError for missing folders, no images or missing labels.
    """
    frames = list_images(images)
    sequences = before_last(path.stem for path in frames)
    return image_list(frames, labels_of(frames, labels), classes, sequences=sequences)


def load(root: Path, split: str) -> ImageList:
    """
    Load `root`/[`split`/]{images,labels} with the class map `root`/classes.yaml.

    Where `root`/scenes.csv exists, it names the images of the split and their scenes.
    """
    path = root / 'classes.yaml'
    content = read_yaml(path, 'class map', DataError)
    classes, colors = class_map_of(content, str(path)), label_colors_of(content, str(path))
    if (root / SCENES_FILE).is_file():
        found = _of_scenes(root, split, classes)
    else:
        found = load_folders(root / split / 'images', root / split / 'labels', classes)
    return found.remade(ColouredImages, label_colors=colors) if colors else found


def _of_scenes(root: Path, split: str, classes: ClassMap) -> ImageList:
    """Return the images of a split of scenes.csv ('' = all), scene after scene."""
    rows = read_scenes(root / SCENES_FILE)
    files = {path.stem: path for path in list_images(root / 'images')}
    chosen = [row for row in rows if split in ('', row.split)]
    missing = [row.name for row in chosen if row.name not in files]
    if missing or not chosen:
        splits = sorted({row.split for row in rows})
        what = f'lists {missing[0]}, which images/ lacks' if missing else f'has no {split!r}'
        raise DataError(f'{root / SCENES_FILE} {what}; its splits are {", ".join(splits)}')
    scenes, images = [row.scene for row in chosen], [files[row.name] for row in chosen]
    found = label_files(root / 'labels')
    unlisted = sorted(set(files) - {row.name for row in rows})
    if unlisted:
        tell(f'{root / SCENES_FILE} leaves {len(unlisted)} images out, such as {unlisted[0]}')
    labels = [found.get(row.name, root / 'labels' / f'{row.name}.png') for row in chosen]
    return image_list(images, labels, classes, sequences=scenes)


ENTRIES = {
    'folders': SetEntry(
        description='your own images with a YAML class map: folders/<split>=<folder>',
        title='',
        kind='closed-set',
        images=load,
        layout=load,
        more=lambda root, split, _: {'title': f'{root.name} {split}'.strip()},
        folders=('folders',),
        splits=(),
        licence='your own',
    )
}
