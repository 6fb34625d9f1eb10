# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of COCO annotations: polygons, or run lengths as a list or in COCO's compressed text."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
_MOST = 1e6  # pixels: farther off no picture reaches
_FIRST, _LAST = 48, 111  # characters of the compressed text: 48 + 6 bits


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
        raise DataError(f'{place} has a polygon with corners that are no places in a picture')
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
