# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Polygons in string parameters, since ROS parameters do not nest: '[camera:] x,y x,y x,y'."""

from __future__ import annotations

from collections.abc import Sequence

from ood_perception.errors import ConfigError

Polygon = tuple[tuple[float, float], ...]
EXAMPLE = "'front: 0.1,1.0 0.45,0.5 0.55,0.5 0.9,1.0'"


def parse_polygons(parameter: str, entries: Sequence[str]) -> dict[str, tuple[Polygon, ...]]:
    """
    Return the polygons per camera; those without a camera's name are under ''.

    Coordinates are shares of the picture's width and height, 0 = left/top, 1 = right/bottom.

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
        points = tuple(_parse_point(word) for word in rest.split())
    except ValueError:
        raise _refused(parameter, entry, 'a point is not x,y') from None
    if len(points) < 3:
        raise _refused(parameter, entry, f'{len(points)} points are no polygon')
    if not all(0.0 <= value <= 1.0 for point in points for value in point):
        raise _refused(parameter, entry, 'coordinates are shares, from 0 to 1')
    return camera.strip() if colon else '', points


def _parse_point(word: str) -> tuple[float, float]:
    x, y = word.split(',')
    return float(x), float(y)


def _refused(parameter: str, entry: str, reason: str) -> ConfigError:
    return ConfigError(f'{parameter} has {entry!r}: {reason}; write it like {EXAMPLE}')
