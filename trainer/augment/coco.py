# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Objects of a COCO instance file: read once, every annotation checked and put to its image.

folder/
  instances.json       images, annotations, categories; masks as polygons or run lengths
  images/<file_name>

Memory follows the number of coordinates, eight bytes each: JSON lists are packed while they are
read, as lists of Python numbers COCO's training part takes several times as much.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.errors import DataError
from ood_perception.image.encoded import opened
from ood_perception.image.image_files import broken, file_content, tell
from ood_perception.types import Int64Array, UInt8Array

_MOST = 1e6  # pixels: farther off no image reaches
_FIRST, _LAST = 48, 111  # characters of the compressed text: 48 + 6 bits
JSON_FILE = 'instances.json'
_LISTS = ('images', 'annotations', 'categories')
_ANNOTATION = ('id', 'image_id', 'category_id', 'iscrowd', 'segmentation')
_IMAGE = ('id', 'file_name', 'height', 'width', 'license')
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Polygons:
    """The union of polygons x0, y0, x1, y1, ... in pixels."""

    rings: tuple[array[float], ...]

    def draw(self, canvas: UInt8Array, value: int) -> None:
        """Set the pixels inside, corners rounded to pixels, of uint8 (H, W)."""
        for ring in self.rings:
            points = np.round(np.asarray(ring, np.float64)).astype(np.int32)
            cv2.fillPoly(canvas, [points.reshape(-1, 1, 2)], value)

    def mark(self) -> list[list[float]]:
        """Return what the mask depends on, as JSON values."""
        return [ring.tolist() for ring in self.rings]


@dataclass(frozen=True, slots=True)
class Runs:
    """Lengths of runs outside and inside in turns, down the columns; size: (height, width)."""

    counts: Int64Array
    size: tuple[int, int]

    def draw(self, canvas: UInt8Array, value: int) -> None:
        """Set the pixels inside of uint8 (H, W) of this size."""
        height, width = self.size
        inside = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        canvas[inside.reshape(width, height).T] = value

    def mark(self) -> list[list[int]]:
        """Return what the mask depends on, as JSON values."""
        return [list(self.size), self.counts.tolist()]


Mask = Polygons | Runs


def mask_of(segmentation: object, place: str) -> Mask | None:
    """
    Return an annotation's mask, None where it has none: nothing, or no polygon of three points.

    segmentation: polygons as lists or arrays of numbers, one polygon alone, or {counts, size}.
    place: names the annotation in errors. Raises DataError for anything else.
    """
    if isinstance(segmentation, Mapping):
        return _runs(segmentation, place)
    if segmentation is None or segmentation == []:
        return None
    if not isinstance(segmentation, (list, tuple, array)):
        raise DataError(f'{place} has a segmentation of {type(segmentation).__name__}')
    if all(isinstance(value, (int, float)) for value in segmentation):
        segmentation = [segmentation]  # one polygon that is not wrapped in a list
    rings = [_ring(ring, place) for ring in segmentation]
    kept = tuple(ring for ring in rings if len(ring) >= 6)
    return Polygons(kept) if kept else None


def _ring(values: object, place: str) -> array[float]:
    try:
        ring = values if isinstance(values, array) else array('d', values)  # type: ignore[arg-type]
    except (TypeError, OverflowError) as error:
        raise DataError(f'{place} has a polygon that is no list of numbers ({error})') from error
    if len(ring) % 2:
        raise DataError(f'{place} has a polygon of {len(ring)} numbers: x and y come in pairs')
    # the sum is finite only where all of them are
    if ring and not (math.isfinite(sum(ring)) and -_MOST < min(ring) <= max(ring) < _MOST):
        raise DataError(f'{place} has a polygon with corners that are no places in an image')
    return ring


def _runs(rle: Mapping[str, Any], place: str) -> Runs:
    size, counts = rle.get('size'), rle.get('counts')
    sides = size if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise DataError(f'{place} has run lengths of size {size!r}: expected [height, width]')
    runs = _from_text(counts, place) if isinstance(counts, str) else _from_list(counts, place)
    height, width = sides
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise DataError(
            f'{place} has run lengths of {int(runs.sum())} pixels, its size is {height} x {width}'
        )
    return Runs(runs, (height, width))


def _from_list(counts: object, place: str) -> Int64Array:
    try:
        given = np.asarray(counts, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f'{place} has run lengths that are no numbers ({error})') from error
    if given.ndim != 1 or not np.isfinite(given).all() or (given != np.floor(given)).any():
        raise DataError(f'{place} has run lengths that are no list of whole numbers')
    return given.astype(np.int64)


def _from_text(text: str, place: str) -> Int64Array:
    """
    Return the runs of COCO's compressed text.

    A run is written in groups of 5 bits, lowest first, with a sixth bit in all but its last group,
    whose highest bit is the sign. From the fourth on, runs are differences to the last but one.
    """
    codes = np.array([ord(character) for character in text], np.int64) - _FIRST
    wrong = (codes < 0) | (codes > _LAST - _FIRST)
    if not len(codes) or wrong.any() or codes[-1] & 32:
        raise DataError(f'{place} has run lengths {text[:20]!r} that are no text of COCO')
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 11:
        raise DataError(f'{place} has a run length of more than 60 bits: the text is damaged')
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    negative = codes[ends] & 16 > 0
    values[negative] -= 1 << (shifts[ends[negative]] + 5)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotation with a mask; identity: its id, or its number in the file without one."""

    identity: object
    category: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class CocoImage:
    """
    An image and its objects in their order.

    size: (height, width) by the file, None unsaid. licence: the file's number of it, None unsaid.
    """

    name: str
    path: Path
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]
    licence: int | None = None

    def check_size(self, height: int, width: int) -> None:
        """Raise DataError where the image's size is not the one of the file or of its masks."""
        own = (height, width)
        pairs: list[Any] = [(self.path, own, JSON_FILE, self.size or own)]
        masks = [(f'annotation {one.identity}', one.mask) for one in self.objects]
        pairs += [(what, m.size, self.path, own) for what, m in masks if isinstance(m, Runs)]
        for what, size, other, expected in pairs:
            if size != expected:
                raise DataError(
                    f'{what} has {size[1]} x {size[0]} pixels, {other} {expected[1]} x '
                    f'{expected[0]}: masks and images belong to different copies; get both anew'
                )


def read_coco(folder: Path) -> tuple[CocoImage, ...]:
    """
    Return the images that show objects, by name; crowds are left out, masks that lack are told.

    folder: see above. The images themselves are not looked at, see need_images. Raises
    DataError naming the file, and the annotation that is wrong.
    """
    source = folder / JSON_FILE
    lists = _parsed(source)
    names = {_id(e, 'id', f'{source}: category'): str(e.get('name')) for e in lists['categories']}
    images = {_id(e, 'id', f'{source}: image'): e for e in lists['images']}
    if len(images) < len(lists['images']):
        raise DataError(f'{source}: two images have one id')
    objects = _objects(lists['annotations'], names, images, source)
    shown = [_image(images[key], found, folder, source) for key, found in objects.items()]
    return tuple(sorted(shown, key=lambda image: image.name))


def need_images(images: Iterable[CocoImage]) -> None:
    """Raise DataError for an image that is missing, is none or is of another size: heads only."""
    for frame in images:
        try:
            with opened(frame.path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError) as error:
            if frame.path.is_file():
                raise broken(f'image {frame.path}', error) from error
            raise DataError(
                f'image {frame.path} is missing; {JSON_FILE} has objects of it'
            ) from error
        frame.check_size(height, width)


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


def _image(entry: Entry, objects: list[CocoObject], folder: Path, source: Path) -> CocoImage:
    name, size = entry.get('file_name'), (entry.get('height'), entry.get('width'))
    if not isinstance(name, str) or not name:
        raise DataError(f'{source}: image {entry["id"]} has the file_name {name!r}: give its file')
    known = all(isinstance(side, int) for side in size)
    if not known and size != (None, None):
        raise DataError(f'{source}: image {entry["id"]} has height and width {size}')
    path, own = folder / 'images' / name, size if known else None
    return CocoImage(name, path, own, tuple(objects), entry.get('license'))


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
