# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Objects of a COCO instance file: read once, every annotation checked and put to its picture.

folder/
  instances.json       images, annotations, categories; masks as polygons or run lengths
  images/<file_name>

Memory follows the number of coordinates, eight bytes each: JSON lists are packed while they are
read, as lists of Python numbers COCO's training part takes several times as much.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_perception.errors import DataError
from ood_perception.image.image_files import broken, file_content, tell
from ood_perception.image.image_size import opened

from .coco_masks import Mask, Runs, mask_of

JSON_FILE = 'instances.json'
_LISTS = ('images', 'annotations', 'categories')
_ANNOTATION = ('id', 'image_id', 'category_id', 'iscrowd', 'segmentation')
_IMAGE = ('id', 'file_name', 'height', 'width')
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotation with a mask; identity: its id, or its number in the file without one."""

    identity: object
    category: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """A picture and its objects in their order; size: (height, width) by the file, None unsaid."""

    name: str
    path: Path
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]

    def check_size(self, height: int, width: int) -> None:
        """Raise DataError where the picture's size is not the one of the file or of its masks."""
        if self.size not in (None, (height, width)):
            raise _other_size(f'{self.path} has', (height, width), JSON_FILE, self.size)
        for one in self.objects:
            if isinstance(one.mask, Runs) and one.mask.size != (height, width):
                raise _other_size(
                    f'annotation {one.identity} has', one.mask.size, self.path, (height, width)
                )


def read_coco(folder: Path) -> tuple[CocoPicture, ...]:
    """
    Return the pictures that show objects, by name; crowds are left out, masks that lack are told.

    folder: see above. The pictures themselves are not looked at, see need_pictures. Raises
    DataError naming the file, and the annotation that is wrong.
    """
    source = folder / JSON_FILE
    lists = _parsed(source)
    names = {_id(e, 'id', f'{source}: category'): str(e.get('name')) for e in lists['categories']}
    images = {_id(e, 'id', f'{source}: image'): e for e in lists['images']}
    if len(images) < len(lists['images']):
        raise DataError(f'{source}: two images have one id')
    objects = _objects(lists['annotations'], names, images, source)
    shown = [_picture(images[key], found, folder, source) for key, found in objects.items()]
    return tuple(sorted(shown, key=lambda picture: picture.name))


def need_pictures(pictures: Iterable[CocoPicture]) -> None:
    """Raise DataError for a picture that is missing, is none or is of another size: heads only."""
    for picture in pictures:
        try:
            with opened(picture.path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError) as error:
            if picture.path.is_file():
                raise broken(f'picture {picture.path}', error) from error
            raise DataError(
                f'picture {picture.path} is missing; {JSON_FILE} has objects of it'
            ) from error
        picture.check_size(height, width)


def _parsed(source: Path) -> dict[str, list[Any]]:
    """Return the three lists, packed; DataError for what is no COCO file."""
    if not source.is_file():
        raise DataError(f'{source} is missing; give the folder with COCO polygons and images')
    try:
        content = json.loads(file_content(source, 'COCO file'), object_hook=_packed)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{source} is no JSON, or was cut off: {error}; copy it anew') from error
    for name in _LISTS:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(
                f'{source}: expected a list "{name}" of entries, as COCO instance files have'
            )
    return {name: content[name] for name in _LISTS}


def _packed(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with what is used of it alone, its numbers packed where they are numbers."""
    if 'image_id' in entry:
        entry = {key: entry[key] for key in _ANNOTATION if key in entry}
        rings = entry.get('segmentation')
        if isinstance(rings, list):
            entry['segmentation'] = [_numbers(ring) for ring in rings]
    elif 'file_name' in entry:
        entry = {key: entry[key] for key in _IMAGE if key in entry}
    elif 'counts' in entry:
        entry['counts'] = _numbers(entry['counts'])
    return entry


def _numbers(value: Any) -> Any:
    """Return a list of numbers as an array; anything else as it is, to be refused by name."""
    if not isinstance(value, list) or bool in map(type, value):
        return value
    try:
        return array('d', value)
    except (TypeError, OverflowError):
        return value


def _objects(
    annotations: list[Entry], names: Mapping[Any, str], images: Mapping[Any, Entry], source: Path
) -> dict[Any, list[CocoObject]]:
    """Return image id -> its objects."""
    found: dict[Any, list[CocoObject]] = {}
    bare: list[str] = []
    for number, entry in enumerate(annotations):
        identity = entry.get('id', f'number {number}')
        place = f'{source}: annotation {identity}'
        image, category = _id(entry, 'image_id', place), _id(entry, 'category_id', place)
        if image not in images:
            raise DataError(f'{place} is of image {image!r}, which "images" does not list')
        if category not in names:
            raise DataError(f'{place} is of category {category!r}, which is not listed')
        if _is_crowd(entry, place):
            continue
        mask = mask_of(entry.get('segmentation'), place)
        if mask is None:
            bare.append(place)
        else:
            found.setdefault(image, []).append(CocoObject(identity, names[category], mask))
    if bare:
        tell(f'{len(bare)} annotations without a mask are left out, the first is {bare[0]}')
    return found


def _picture(entry: Entry, objects: list[CocoObject], folder: Path, source: Path) -> CocoPicture:
    name, size = entry.get('file_name'), (entry.get('height'), entry.get('width'))
    if not isinstance(name, str) or not name:
        raise DataError(f'{source}: image {entry["id"]} has the file_name {name!r}: give its file')
    known = all(isinstance(side, int) for side in size)
    if not known and size != (None, None):
        raise DataError(f'{source}: image {entry["id"]} has height and width {size}')
    return CocoPicture(name, folder / 'images' / name, size if known else None, tuple(objects))


def _id(entry: Entry, key: str, place: str) -> int | str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(f'{place} has {key} {value!r}: expected a number that others refer to')
    return value


def _is_crowd(entry: Entry, place: str) -> bool:
    crowd = entry.get('iscrowd', 0)
    if crowd not in (0, 1, None):
        raise DataError(f'{place} has iscrowd {crowd!r}: it is 0 or 1')
    return bool(crowd)


def _other_size(
    what: str, size: tuple[int, int], other: object, expected: tuple[int, int] | None
) -> DataError:
    wanted = expected or (0, 0)
    return DataError(
        f'{what} {size[1]} x {size[0]} pixels, {other} {wanted[1]} x {wanted[0]}: masks and '
        'pictures belong to different copies; get both anew'
    )
