# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is ground and what is in its way on the score grid, and where the ground ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ood_perception.image.geometry import Points, grid_to_camera
from ood_perception.postprocess.ground_edge import Rows, below_line, bridged, edge_rows
from ood_perception.postprocess.roi import large_patches
from ood_perception.types import BoolArray, Detection, UInt8Array

# Labels waver along a border: this many cells above the ground's end say what lies behind it.
_LOOKED_ABOVE = 2


class EdgeKind(IntEnum):
    """What ends the ground in a column; the values are part of the ROS interface."""

    BLOCKED = 0  # an obstacle or an obstacle class
    OPEN = 1  # neither: the sky, or the picture's end
    HIDDEN = 2  # not seen: something stands before it, the row is the neighbours'
    NO_GROUND = 3  # the column shows no ground at all
    NOT_SEEN = 4  # the column is not looked at: ignored, or beside the picture


@dataclass(frozen=True)
class Scene:
    """
    What the classes mean here.

    ground, obstacle: bool (256,), True at the ids of the ground's and of obstacle classes.
    bridge: share of the width from which on what reaches the picture's side ends the ground.
    """

    ground: BoolArray
    obstacle: BoolArray
    bridge: float = 0.15


@dataclass(frozen=True)
class Terrain:
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


def terrain_of(detection: Detection, scene: Scene) -> Terrain:
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
    return Terrain(visible, blocked, seen, rows, behind, scene.bridge)


def edge_of(detection: Detection, terrain: Terrain) -> Edge:
    """Return the ground's far edge, bridged behind what stands on it."""
    visible, blocked = terrain.visible, terrain.blocked
    rows, behind = terrain.rows, terrain.behind
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
    kind[~terrain.seen] = EdgeKind.NOT_SEEN
    lowest = height - visible[::-1].argmax(axis=0)
    y = np.where(edge >= height, lowest, edge).astype(np.float64)
    y[~terrain.seen] = np.nan
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
