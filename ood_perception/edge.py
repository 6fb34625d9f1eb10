# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the ground ends: its far edge, column by column, on the score grid."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.geometry import Points, Size, grid_to_camera
from ood_perception.types import BoolArray, Geometry

Rows = npt.NDArray[np.intp]


def edge_rows(ground: BoolArray) -> Rows:
    """
    Return the row of the highest ground cell of every column, intp (gw,), gh where there is none.

    ground: bool (gh, gw), free of specks (roi.large_patches).
    """
    rows: Rows = np.where(ground.any(axis=0), ground.argmax(axis=0), ground.shape[0])
    return rows


def bridged(rows: Rows, share: float) -> Rows:
    """
    Return the edge behind what stands on the ground: dips narrower than a share of the width go.

    rows: intp (gw,) of edge_rows. share: of the width, in [0, 1]; what is wider is the end of the
    ground itself. A grey opening (Serra, 1982) of the row numbers, mirrored at the sides, so that
    a dip at the side counts double. Returns intp (gw,), nowhere below the edge given.
    """
    # An odd window of 2 k + 1 columns removes dips of up to 2 k.
    window = 2 * int(share * len(rows) / 2) + 1
    kernel = np.ones((1, window), np.uint8)
    line = rows.astype(np.float32)[None, :]
    border = cv2.BORDER_REFLECT
    opened = cv2.dilate(cv2.erode(line, kernel, borderType=border), kernel, borderType=border)
    return np.asarray(opened, dtype=np.intp).reshape(-1)


def below_edge(ground: BoolArray, share: float) -> BoolArray:
    """
    Return the cells from the bridged edge down, bool (gh, gw), a superset of the ground.

    ground: bool (gh, gw), free of specks. share: see bridged.
    """
    rows = bridged(edge_rows(ground), share)
    region: BoolArray = np.arange(ground.shape[0])[:, None] >= rows[None, :]
    return region


def below_line(line: Points, geometry: Geometry, grid_size: Size) -> BoolArray:
    """
    Return the cells below a line across the picture, bool (gh, gw), by their centres.

    line: float64 (n, 2), points x, y in camera pixels, x rising, e.g. the horizon; straight
        between them and level beyond the ends. A NaN cuts nothing off there.
    """
    rows, columns = grid_size
    centres = np.column_stack([np.arange(columns) + 0.5, np.zeros(columns)])
    across = grid_to_camera(centres, geometry, grid_size)[:, 0]
    down = np.column_stack([np.zeros(rows), np.arange(rows) + 0.5])
    y = grid_to_camera(down, geometry, grid_size)[:, 1]
    limit = np.interp(across, line[:, 0], line[:, 1])
    cells: BoolArray = ~(y[:, None] < limit[None, :])
    return cells
