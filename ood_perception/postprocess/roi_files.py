# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Regions of interest that users give: images whose non-zero pixels are scored, and polygons.

ROS parameters do not nest: polygons are strings, '[camera:] x,y x,y x,y'.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ood_perception.errors import ConfigError, ImageError, OodPerceptionError
from ood_perception.image.geometry import Size, cell_centres
from ood_perception.image.image_files import read_label
from ood_perception.types import BoolArray, Geometry

MOST_MASK_BYTES = 64 << 20
MASK_EXAMPLE = "'/data/belt.png' or 'top: /data/belt.png'"
Polygon = tuple[tuple[float, float], ...]
POLYGON_EXAMPLE = "'front: 0.1,1.0 0.45,0.5 0.55,0.5 0.9,1.0'"


@dataclass(frozen=True, eq=False)
class RegionMask:
    """A static mask; path: of its file, for messages. scored: bool (h, w), True = scored."""

    path: str
    scored: BoolArray


CameraMasks = Mapping[str, RegionMask]


def load_mask(path: Path) -> RegionMask:
    """
    Read a mask, pixels as they are stored: grey or palette, index 0 is not scored.

    It is read once while the file stays as it is. Raises ConfigError naming the file and what is
    wrong with it: it is no regular file, too large, no label image, or all zero.
    """
    try:
        path = path.expanduser()
        found = path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # no such user; a NUL in the name
        raise ConfigError(f'roi mask {path} is missing or cannot be read: {error}') from error
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_MASK_BYTES:
        raise ConfigError(
            f'roi mask {path} is no regular file of at most {MOST_MASK_BYTES >> 20} MiB: save it '
            'as a PNG of one grey channel'
        )
    return _read_mask(path, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=8)
def _read_mask(path: Path, _: tuple[int, ...]) -> RegionMask:
    try:
        scored = read_label(path, 'roi mask') > 0
    except OodPerceptionError as error:
        raise ConfigError(f'{error} (0 = not scored, any other value = scored)') from error
    if not scored.any():
        raise ConfigError(f'roi mask {path} is all zero: nothing would be scored')
    scored.setflags(write=False)
    return RegionMask(str(path), scored)


def load_masks(parameter: str, entries: Sequence[str]) -> dict[str, RegionMask]:
    """Read masks of '[camera: ]file', the unnamed one under ''; ConfigError names the culprit."""
    files = mask_files(parameter, entries)
    return {camera: load_mask(Path(path)) for camera, path in files.items()}


def mask_files(parameter: str, entries: Sequence[str]) -> dict[str, str]:
    """Return the file per camera, nothing is read; ConfigError for two files of one camera."""
    files: dict[str, str] = {}
    for entry in filter(str.strip, entries):
        # A colon alone may be part of a path.
        name, separator, path = entry.partition(': ')
        camera, path = (name.strip(), path.strip()) if separator else ('', entry.strip())
        if camera in files or not path:
            raise ConfigError(
                f'{parameter} has {entry!r}: write one file for a camera, like {MASK_EXAMPLE}'
            )
        files[camera] = path
    return files


def mask_cells(mask: RegionMask, geometry: Geometry, grid_size: Size) -> BoolArray:
    """
    Return bool (gh, gw): cells whose centre falls on a scored pixel of the mask (nearest).

    The mask may be smaller or larger than the camera image, of the same aspect. Raises
    ImageError where it is not: it was drawn for another camera or another cut of its image.
    """
    height, width = mask.scored.shape
    if abs(width * geometry.camera_height / geometry.camera_width - height) > 1.0:
        raise ImageError(
            f'roi mask {mask.path} has {width} x {height} pixels, the camera image '
            f'{geometry.camera_width} x {geometry.camera_height}: draw the mask on an image of '
            'this camera; its size may differ, its aspect may not'
        )
    x, y = cell_centres(geometry, grid_size)
    across, down = x * (width / geometry.camera_width), y * (height / geometry.camera_height)
    # Cells in the padding are no part of the image; grid_valid leaves them out.
    column = np.clip(np.floor(across), 0, width - 1).astype(np.intp)
    row = np.clip(np.floor(down), 0, height - 1).astype(np.intp)
    cells: BoolArray = mask.scored[row[:, None], column[None, :]]
    return cells


def parse_polygons(parameter: str, entries: Sequence[str]) -> dict[str, tuple[Polygon, ...]]:
    """
    Return the polygons per camera; those without a camera's name are under ''.

    Coordinates are shares of the image's width and height, 0 = left/top, 1 = right/bottom.

    Raises ConfigError naming the parameter and the entry.
    """
    polygons: dict[str, tuple[Polygon, ...]] = {}
    for entry in entries:
        if entry.strip():
            camera, polygon = _parse_one(parameter, entry)
            polygons[camera] = (*polygons.get(camera, ()), polygon)
    return polygons


def _parse_one(parameter: str, entry: str) -> tuple[str, Polygon]:
    camera, colon, rest = entry.rpartition(':')
    try:
        pairs = (word.split(',') for word in rest.split())
        points = tuple((float(x), float(y)) for x, y in pairs)
    except ValueError:
        raise _refused(parameter, entry, 'a point is not x,y') from None
    if problem := polygon_problem(points):
        raise _refused(parameter, entry, problem)
    return camera.strip() if colon else '', points


def polygon_problem(polygon: Polygon) -> str:
    """Return what is wrong with a polygon, '' for three points or more inside the image."""
    if len(polygon) < 3 or any(len(point) != 2 for point in polygon):
        return f'{len(polygon)} points, give three points (x, y) or more'
    if not all(0.0 <= value <= 1.0 for point in polygon for value in point):
        return 'x and y are shares of the width and height, from 0 to 1'
    return ''


def _refused(parameter: str, entry: str, reason: str) -> ConfigError:
    return ConfigError(f'{parameter} has {entry!r}: {reason}; write it like {POLYGON_EXAMPLE}')
