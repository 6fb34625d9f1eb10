# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the objects of outlier exposure come from: COCO polygons, cut-outs in files, or code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ood_perception.errors import ConfigError, DataError, check_choices, check_least
from ood_perception.files import user_path
from ood_perception.image.image_files import check_stored_size, file_content, image_tree
from ood_perception.types import UInt8Array

from ..data.images import ClassMap, ImageList, read_image
from .coco import JSON_FILE, Mask, need_images, read_coco
from .cutouts import PARTS, Cutout, cropped, load_cutouts, part_of
from .pasting import OUTLIER
from .procedural_objects import draw_object
from .views import hash_of

MIXED = 'coco+procedural'
SOURCES = ('coco', 'folder', 'procedural', MIXED)


@dataclass(frozen=True)
class OutlierConfig:
    """
    The objects of outlier exposure. Half of them, by their images' names, only choose.

    source: 'coco' (folder with images/ and instances.json), 'folder' (PNG files with alpha, one
        object each; a subfolder's name is their category), 'procedural' (drawn by code) or
        'coco+procedural'.
    folder: of the first two, relative to the data set's parent where it is not absolute.
    objects: of the procedural set, both halves together; so many go `together` into one image.
    licences: of COCO's images, by the numbers of its file (4: CC BY, 5: CC BY-SA, 7: no known
        restrictions, 8: works of the United States); () = whatever they are.
    exclude: categories that are left out. most: objects to train with, drawn by seed; 0 = all.
    """

    source: str = 'coco'
    folder: str = 'outlier_objects'
    objects: int = 400
    together: int = 1
    licences: tuple[int, ...] = ()
    exclude: tuple[str, ...] = ()
    most: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('outliers', self, source=SOURCES)
        check_least('outliers', self, 0, 'most')
        check_least('outliers', self, 2, 'objects')
        check_least('outliers', self, 1, 'together')

    def folder_at(self, data_root: Path) -> Path:
        """Return the folder, given the data set's."""
        return data_root.parent / user_path(self.folder)


def load_outliers(config: OutlierConfig, part: str, data_root: Path) -> list[Cutout]:
    """
    Return the objects of a part ('training' or 'selection'); no image serves both.

    `most` limits the training's alone, so that runs with fewer objects are chosen alike.
    Raises ConfigError where `exclude` leaves nothing, DataError for files.
    """
    found = _LOADERS[config.source](config, part, config.folder_at(data_root))
    kept = [cutout for cutout in found if cutout.category not in config.exclude]
    if not kept:
        raise ConfigError(
            f'outliers.exclude {list(config.exclude)} leaves no object for the part {part!r}'
        )
    if part == 'training' and config.most:
        order = np.random.default_rng(config.seed).permutation(len(kept))[: config.most]
        kept = [kept[i] for i in sorted(order)]
    return kept


def check_outliers(config: OutlierConfig, data_root: Path) -> None:
    """
    Raise DataError for files of objects that cannot be read, before anything long is made.

    Of COCO images the heads alone are looked at. Raises ConfigError as load_outliers does.
    """
    if config.source not in ('coco', MIXED):
        for part in PARTS:
            load_outliers(config, part, data_root)
        return
    folder = config.folder_at(data_root)
    images = read_coco(folder)
    need_images(images)
    for part in PARTS:
        if not any(part_of(image.name) == part for image in images):
            raise DataError(f'{folder / JSON_FILE} has no object for the part {part!r}')


def load_cutout_files(folder: Path, part: str) -> list[Cutout]:
    """
    Return the objects of one part of a folder of images with alpha (more than half = object).

    Raises DataError for a missing folder, a file without alpha or without an opaque pixel, and a
    part without objects.
    """
    if part not in PARTS:
        raise DataError(f'unknown part {part!r} of the objects; known are {PARTS}')
    files = sorted(image_tree(folder)) if folder.is_dir() else []
    if not files:
        raise DataError(f'{folder} holds no image file: give a folder of cut-outs with alpha')
    names = [path.relative_to(folder) for path in files]
    cutouts = [
        Cutout(_read_rgba(path), str(name), str(name.parent) if name.parent.name else '')
        for path, name in zip(files, names, strict=True)
        if part_of(str(name)) == part
    ]
    if not cutouts:
        raise DataError(f'{folder} has no object for the part {part!r}: give more files')
    return cutouts


def _read_rgba(path: Path) -> UInt8Array:
    """Read uint8 (h, w, 4) RGB with a 0/255 mask, cropped to the object."""
    content = np.frombuffer(file_content(path, 'cut-out'), np.uint8)
    check_stored_size(content, f'cut-out {path}')
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8:
        raise DataError(f'{path} is no image of 8 bits with alpha: save it as PNG, RGBA')
    solid = pixels[..., 3] > 127
    if not solid.any():
        raise DataError(f'{path} has no opaque pixel: it shows no object')
    return cropped(np.dstack([pixels[..., 2::-1], np.where(solid, 255, 0).astype(np.uint8)]))


def procedural_cutouts(config: OutlierConfig, part: str) -> list[Cutout]:
    """Return the drawn objects of one part; the same seed gives the same objects."""
    found = []
    for index in range(config.objects):
        name = f'procedural {config.seed} {index // config.together}'
        if part_of(name) == part:
            found.append(draw_object(name, np.random.default_rng((config.seed, index))))
    return found


def coco_cutouts(config: OutlierConfig, part: str, folder: Path) -> list[Cutout]:
    """Return the objects of one part of a COCO file; see load_cutouts."""
    return load_cutouts(folder, part, licences=config.licences)


_Loader = Callable[[OutlierConfig, str, Path], list[Cutout]]
_LOADERS: dict[str, _Loader] = {
    'coco': coco_cutouts,
    'folder': lambda config, part, folder: load_cutout_files(folder, part),
    'procedural': lambda config, part, _: procedural_cutouts(config, part),
    MIXED: lambda config, part, folder: (
        coco_cutouts(config, part, folder) + procedural_cutouts(config, part)
    ),
}


KNOWN = 0
"""What every pixel outside the objects is labelled: some known thing, no matter which."""


@dataclass(frozen=True)
class ContextImages(ImageList):
    """Everyday images; labels are drawn from the masks of each image's objects."""

    masks: tuple[tuple[Mask, ...], ...] = ()

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return uint8 (H, W, 3) RGB and uint8 (H, W), OUTLIER on objects and KNOWN elsewhere."""
        image = read_image(self.images[index])
        labels = np.full(image.shape[:2], KNOWN, np.uint8)
        for mask in self.masks[index]:
            mask.draw(labels, OUTLIER)
        return image, labels


def load_context(
    folder: Path, part: str, classes: ClassMap, exclude: Sequence[str] = ()
) -> ContextImages:
    """
    Return the images of one part ('training' or 'selection') that show objects.

    folder: images/ and instances.json in COCO's format. classes: of the road images, for the
    list alone. exclude: categories that are known, not outliers. Crowds are not marked.
    Raises DataError for a missing or wrong file (the annotation is named), an image that is
    missing or of another size, and a part without objects.
    """
    shown = [
        (image, tuple(one.mask for one in image.objects if one.category not in exclude))
        for image in read_coco(folder)
        if part_of(image.name) == part
    ]
    shown = [(image, masks) for image, masks in shown if masks]
    if not shown:
        source = folder / JSON_FILE
        raise DataError(f'{source} has no image with objects for the part {part!r}')
    need_images(image for image, _ in shown)
    names = tuple(f'{image.name}@{_mark(masks)}' for image, masks in shown)
    images = tuple(image.path for image, _ in shown)
    marked = tuple(masks for _, masks in shown)
    return ContextImages(names, images, (), names, classes, masks=marked)


def _mark(masks: Sequence[Mask]) -> str:
    """Return a short hash of what is marked: it tells images apart, and seeds their views."""
    return hash_of({'polygons': [part for mask in masks for part in mask.mark()]})
