# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Ground and what is in its way on the score grid; where it ends, and where obstacles meet it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.image.geometry import Points, grid_to_camera
from ood_perception.postprocess.mask import (
    Components,
    component_numbers,
    find_components,
)
from ood_perception.postprocess.roi import Rows, below_line, bridged, edge_rows, large_patches
from ood_perception.types import BoolArray, Detection, UInt8Array

# Labels waver along a border: this many cells above the ground's end say what lies behind it.
_LOOKED_ABOVE = 2


class EdgeKind(IntEnum):
    """What ends the ground in a column; the values are part of the ROS interface."""

    BLOCKED = 0  # an obstacle or an obstacle class
    OPEN = 1  # neither: the sky, or the image's end
    HIDDEN = 2  # not seen: something stands before it, the row is the neighbours'
    NO_GROUND = 3  # the column shows no ground at all
    NOT_SEEN = 4  # the column is not looked at: ignored, or beside the image


@dataclass(frozen=True)
class Scene:
    """
    What the classes mean here.

    ground, obstacle: bool (256,), True at the ids of the ground's and of obstacle classes.
    bridge: share of the width from which on what reaches the image's side ends the ground.
    """

    ground: BoolArray
    obstacle: BoolArray
    bridge: float = 0.15


@dataclass(frozen=True)
class Ground:
    """
    One detection's ground, seen through a scene's classes.

    visible: bool (gh, gw), what is looked at at all. blocked: bool (gh, gw), what is in the way,
        inside the region of interest or not.
    seen: bool (gw,), columns of which anything is visible.
    rows: intp (gw,), highest ground of every column, gh = none. behind: intp (gw,), the same
        bridged behind what stands on the ground.
    bridge: see Scene.
    """

    visible: BoolArray
    blocked: BoolArray
    seen: BoolArray
    rows: Rows
    behind: Rows
    bridge: float


@dataclass(frozen=True)
class Edge:
    """
    The ground's far edge by grid column.

    line: float64 (gw, 3): x of the column's left and right end and y, camera pixels in edge
        coordinates; where there is no ground, y is the lowest that is seen, NaN without any.
    kind: uint8 (gw,) of EdgeKind.
    """

    line: Points
    kind: UInt8Array


def ground_of(detection: Detection, scene: Scene) -> Ground:
    """
    Return the detection's ground; specks are none, and above a known horizon there is none.

    A scene without ground classes is ground wherever it is looked at.
    """
    visible = detection.scored if detection.visible is None else detection.visible
    ground = visible.copy()
    if scene.ground.any():
        ground &= scene.ground[detection.labels]
    horizon = None
    if detection.frame.horizon is not None:
        size = (ground.shape[0], ground.shape[1])
        below = below_line(detection.frame.horizon, detection.geometry, size)
        ground, horizon = ground & below, edge_rows(below)
    rows = edge_rows(large_patches(ground))
    blocked = (scene.obstacle[detection.labels] & visible) | detection.mask
    seen: BoolArray = np.asarray(visible.any(axis=0))
    behind = bridged(rows, scene.bridge, horizon, seen)
    return Ground(visible, blocked, seen, rows, behind, scene.bridge)


def edge_of(detection: Detection, ground: Ground) -> Edge:
    """Return the ground's far edge, bridged behind what stands on it."""
    visible, blocked = ground.visible, ground.blocked
    rows, behind = ground.rows, ground.behind
    height, columns = visible.shape[0], np.arange(visible.shape[1])
    between = np.arange(height)[:, None] >= behind
    between &= np.arange(height)[:, None] < rows
    hidden = (blocked & between).any(axis=0)
    edge = np.where(hidden, behind, rows)
    closed = np.zeros(len(rows), dtype=bool)
    for step in range(1, _LOOKED_ABOVE + 1):
        closed |= blocked[np.maximum(edge - step, 0), columns] & (edge >= step)
    kind = np.where(closed, EdgeKind.BLOCKED, EdgeKind.OPEN).astype(np.uint8)
    kind[hidden] = EdgeKind.HIDDEN
    kind[edge >= height] = EdgeKind.NO_GROUND
    kind[~ground.seen] = EdgeKind.NOT_SEEN
    lowest = height - visible[::-1].argmax(axis=0)
    y = np.where(edge >= height, lowest, edge).astype(np.float64)
    y[~ground.seen] = np.nan
    return Edge(column_spans(columns.astype(np.float64), y, detection), kind)


def cells_to_camera(cells: Points, detection: Detection) -> Points:
    """Return points (N, 2) of the detection's score grid in camera pixels, edge coordinates."""
    size = (detection.mask.shape[0], detection.mask.shape[1])
    return grid_to_camera(cells, detection.geometry, size)


def column_spans(columns: Points, rows: Points, detection: Detection) -> Points:
    """Return columns with a row each as left and right end and y in camera pixels, (N, 3)."""
    left = cells_to_camera(np.column_stack([columns, rows]), detection)
    right = cells_to_camera(np.column_stack([columns + 1, rows]), detection)
    return np.column_stack([left[:, 0], right[:, 0], left[:, 1]])


# What reaches farther below the ground's edge than this share of the image's height does not
# touch its end: there is ground between.
_TOUCHING = 0.03


@dataclass(frozen=True)
class ContactPoints:
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


def contact_points_of(detection: Detection, ground: Ground) -> ContactPoints:
    """Return where the detection's obstacles meet the ground."""
    components = find_components(detection.mask, detection.surprisal)
    numbers = component_numbers(detection, components)
    below = np.zeros_like(ground.visible)
    below[:-1] = ground.visible[1:]  # whether the cell under each is looked at
    borders = [_border(components, number) for number in numbers]
    lowest = np.array([_lowest(border, below) for border in borders]).reshape(-1, 3)
    boxes = components.boxes[numbers].astype(np.float64)
    left = np.column_stack([boxes[:, 0], lowest[:, 1]])
    right = np.column_stack([boxes[:, 0] + boxes[:, 2], lowest[:, 1]])
    outline = [np.insert(border, 2, index, axis=1) for index, border in enumerate(borders)]
    spans = np.concatenate([np.zeros((0, 3)), *outline])
    cut = ~below[spans[:, 1].astype(int) - 1, spans[:, 0].astype(int)]
    above = ground.behind[lowest[:, 0].astype(np.intp)]
    touching = lowest[:, 1] - above <= _TOUCHING * ground.visible.shape[0]
    return ContactPoints(
        points=cells_to_camera(lowest[:, :2], detection),
        left=cells_to_camera(left, detection),
        right=cells_to_camera(right, detection),
        cut_off=lowest[:, 2] > 0,
        at_edge=_at_end(ground, components, numbers) & (touching | _at_side(ground, boxes)),
        outline=np.column_stack([column_spans(spans[:, 0], spans[:, 1], detection), spans[:, 2]]),
        outline_cut_off=cut,
    )


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


def _at_end(ground: Ground, components: Components, numbers: npt.NDArray[np.intp]) -> BoolArray:
    """
    Return which obstacles hang together with the ground's end, bool (N,).

    What is in the way is put together, whether the region of interest holds it or not; a piece
    ends the ground if it reaches the image's side, is wider than the bridged share and has no
    ground above some part of it.
    """
    blocked = ground.blocked
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(
        blocked.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    beyond = blocked & (np.arange(blocked.shape[0])[:, None] < ground.rows[None, :])
    ends = np.zeros(len(stats), dtype=bool)
    ends[pieces[beyond]] = True
    ends &= stats[:, cv2.CC_STAT_WIDTH] > ground.bridge * np.count_nonzero(ground.seen)
    ends &= _at_side(ground, stats[:, :4])
    ends[0] = False
    piece_of = np.zeros(len(components.areas) + 1, dtype=np.intp)
    piece_of[components.patches] = pieces
    at_end: BoolArray = ends[piece_of[numbers + 1]]
    return at_end


def _at_side(ground: Ground, boxes: npt.NDArray[Any]) -> BoolArray:
    """Return which boxes, (N, 4), reach the left or right end of what is seen."""
    columns = np.flatnonzero(ground.seen)
    first, last = (columns[0], columns[-1]) if columns.size else (0, -1)
    at_side: BoolArray = (boxes[:, 0] <= first) | (boxes[:, 0] + boxes[:, 2] > last)
    return at_side
