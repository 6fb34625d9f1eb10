# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where obstacles meet the ground in the picture, and which of them belong to the ground's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.image.geometry import Points
from ood_perception.postprocess.mask import (
    Components,
    find_components,
    obstacle_order,
    obstacles_of,
)
from ood_perception.ranging.ground import Terrain, cells_to_camera, column_spans
from ood_perception.types import BoolArray, Detection

# What reaches farther below the ground's edge than this share of the picture's height does not
# touch its end: there is ground between.
_TOUCHING = 0.03


@dataclass(frozen=True)
class Contacts:
    """
    Where N obstacles meet the ground, in the order of detection.obstacles.

    points: float64 (N, 2), the middle of the lowest border, camera pixels in edge coordinates.
    left, right: float64 (N, 2), the ends of the box at the same height.
    cut_off: bool (N,), the border is that of what the camera sees, not the obstacle's.
    at_edge: bool (N,), part of what ends the ground: it touches that end or is one.
    outline: float64 (M, 4), the lower border column by column: x of its left and right end, y, and
        the obstacle's index. outline_cut_off: bool (M,).
    """

    points: Points
    left: Points
    right: Points
    cut_off: BoolArray
    at_edge: BoolArray
    outline: Points
    outline_cut_off: BoolArray


def contacts_of(detection: Detection, terrain: Terrain) -> Contacts:
    """Return where the detection's obstacles meet the ground."""
    components = find_components(detection.mask, detection.surprisal)
    numbers = component_numbers(detection, components)
    below = np.zeros_like(terrain.visible)
    below[:-1] = terrain.visible[1:]  # whether the cell under each is looked at
    borders = [_border(components, number) for number in numbers]
    lowest = np.array([_lowest(border, below) for border in borders]).reshape(-1, 3)
    boxes = components.boxes[numbers].astype(np.float64)
    left = np.column_stack([boxes[:, 0], lowest[:, 1]])
    right = np.column_stack([boxes[:, 0] + boxes[:, 2], lowest[:, 1]])
    outline = [np.insert(border, 2, index, axis=1) for index, border in enumerate(borders)]
    spans = np.concatenate([np.zeros((0, 3)), *outline])
    cut = ~below[spans[:, 1].astype(int) - 1, spans[:, 0].astype(int)]
    above = terrain.behind[lowest[:, 0].astype(np.intp)]
    touching = lowest[:, 1] - above <= _TOUCHING * terrain.visible.shape[0]
    return Contacts(
        points=cells_to_camera(lowest[:, :2], detection),
        left=cells_to_camera(left, detection),
        right=cells_to_camera(right, detection),
        cut_off=lowest[:, 2] > 0,
        at_edge=_at_end(terrain, components, numbers) & (touching | _at_side(terrain, boxes)),
        outline=np.column_stack([column_spans(spans[:, 0], spans[:, 1], detection), spans[:, 2]]),
        outline_cut_off=cut,
    )


def component_numbers(detection: Detection, components: Components) -> npt.NDArray[np.intp]:
    """Return which component each obstacle of the detection is, intp (N,)."""
    order = obstacle_order(components, detection.geometry)
    everything = obstacles_of(components, detection.geometry)
    place = dict(zip(everything, order, strict=True))
    return np.array([place[obstacle] for obstacle in detection.obstacles], dtype=np.intp)


def _border(components: Components, number: int) -> Points:
    """Return the columns of a component and the row under its lowest cell in each, (w, 2)."""
    left, top, width, height = components.boxes[number].tolist()
    own = components.patches[top : top + height, left : left + width] == number + 1
    bottom = top + height - own[::-1].argmax(axis=0)
    return np.column_stack([left + np.arange(width), bottom]).astype(np.float64)


def _lowest(border: Points, below: BoolArray) -> tuple[float, float, float]:
    """Return the middle of a border's lowest part, x and y in cells, and 1 if it is cut off."""
    row = border[:, 1].max()
    columns = border[border[:, 1] == row, 0]
    cut = not below[int(row) - 1, columns.astype(int)].all()
    return float(columns.mean() + 0.5), float(row), float(cut)


def _at_end(terrain: Terrain, components: Components, numbers: npt.NDArray[np.intp]) -> BoolArray:
    """
    Return which obstacles hang together with the ground's end, bool (N,).

    What is in the way is put together, whether the region of interest holds it or not; a piece
    ends the ground if it reaches the picture's side, is wider than the bridged share and has no
    ground above some part of it.
    """
    blocked = terrain.blocked
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(
        blocked.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    beyond = blocked & (np.arange(blocked.shape[0])[:, None] < terrain.rows[None, :])
    ends = np.zeros(len(stats), dtype=bool)
    ends[pieces[beyond]] = True
    ends &= stats[:, cv2.CC_STAT_WIDTH] > terrain.bridge * np.count_nonzero(terrain.seen)
    ends &= _at_side(terrain, stats[:, :4])
    ends[0] = False
    piece_of = np.zeros(len(components.areas) + 1, dtype=np.intp)
    piece_of[components.patches] = pieces
    at_end: BoolArray = ends[piece_of[numbers + 1]]
    return at_end


def _at_side(terrain: Terrain, boxes: npt.NDArray[Any]) -> BoolArray:
    """Return which boxes, (N, 4), reach the left or right end of what is seen."""
    columns = np.flatnonzero(terrain.seen)
    first, last = (columns[0], columns[-1]) if columns.size else (0, -1)
    at_side: BoolArray = (boxes[:, 0] <= first) | (boxes[:, 0] + boxes[:, 2] > last)
    return at_side
