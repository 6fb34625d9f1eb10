# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the ground ends: its far edge, column by column, on the score grid."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.image.geometry import Points, Size, cell_centres
from ood_perception.types import BoolArray, Geometry

Rows = npt.NDArray[np.intp]


def edge_rows(ground: BoolArray) -> Rows:
    """
    Return the row of the highest ground cell of every column, intp (gw,), gh where there is none.

    ground: bool (gh, gw), free of specks (roi.large_patches).
    """
    rows: Rows = np.where(ground.any(axis=0), ground.argmax(axis=0), ground.shape[0])
    return rows


def bridged(
    rows: Rows, share: float, horizon: Rows | None = None, seen: BoolArray | None = None
) -> Rows:
    """
    Return the edge behind what stands on the ground.

    rows: intp (gw,) of edge_rows. share: of the width, in [0, 1]. horizon: intp (gw,), its row in
    every column: heights are then counted from it, so that a tilted picture is filled aslant.
    seen: bool (gw,), columns that are looked at; the others stay as they are and count for
    nothing. None = all.

    What interrupts the ground with ground left and right of it is filled, however wide, up to the
    lower of the two sides; what reaches the picture's side is filled if it is narrower than the
    share, else it is the end of the ground. Ground that rises over less than a fiftieth of the
    width is noise. Returns intp (gw,).
    """
    if seen is not None and not seen.all():
        filled = rows.copy()
        if seen.any():
            level = None if horizon is None else horizon[seen]
            filled[seen] = bridged(rows[seen], share, level)
        return filled
    if horizon is not None:
        aslant: Rows = bridged(rows - horizon, share) + horizon
        return aslant
    rows = _without_spikes(rows)
    side = max(1, int(share * len(rows)))
    left, right = np.minimum.accumulate(rows), np.minimum.accumulate(rows[::-1])
    left[:side], right[:side] = left[side - 1], right[side - 1]
    bridges: Rows = np.maximum(left, right[::-1])
    return bridges


def _without_spikes(rows: Rows) -> Rows:
    """Return the rows after a grey closing (Serra, 1982) over a fiftieth of the width."""
    kernel = np.ones((1, 2 * max(1, round(0.01 * len(rows))) + 1), np.uint8)
    line = rows.astype(np.float32)[None, :]
    border = cv2.BORDER_REPLICATE
    closed = cv2.erode(cv2.dilate(line, kernel, borderType=border), kernel, borderType=border)
    return np.asarray(closed, dtype=np.intp).reshape(-1)


def below_edge(
    ground: BoolArray, share: float, below: BoolArray | None = None, seen: BoolArray | None = None
) -> BoolArray:
    """
    Return the cells from the bridged edge down, bool (gh, gw).

    ground: bool (gh, gw), free of specks. share: see bridged. below: bool (gh, gw), the cells
    below the horizon; None = not known. seen: bool (gw,), columns that are looked at; None = all.
    """
    rows = bridged(edge_rows(ground), share, None if below is None else edge_rows(below), seen)
    region: BoolArray = np.arange(ground.shape[0])[:, None] >= rows[None, :]
    return region


def lowered(region: BoolArray, share: float) -> BoolArray:
    """Return a region, bool (gh, gw), moved down by a share of its height, in [0, 1]."""
    rows = round(share * region.shape[0])
    moved = np.zeros_like(region)
    moved[rows:] = region[: region.shape[0] - rows]
    return moved


def below_line(line: Points, geometry: Geometry, grid_size: Size) -> BoolArray:
    """
    Return the cells below a line across the picture, bool (gh, gw), by their centres.

    line: float64 (n, 2), points x, y in camera pixels, x rising, e.g. the horizon; straight
        between them and level beyond the ends. A NaN cuts nothing off there.
    """
    x, y = cell_centres(geometry, grid_size)
    limit = np.interp(x, line[:, 0], line[:, 1])
    cells: BoolArray = ~(y[:, None] < limit[None, :])
    return cells
