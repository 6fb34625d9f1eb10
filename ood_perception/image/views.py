# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Further views of a frame: crops of it at the network's own size, and how their scores meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ood_perception.image.geometry import Size, cell_centres, grid_valid
from ood_perception.types import BoolArray, Float32Array, Geometry

MOST_VIEWS = 8


@dataclass(frozen=True)
class ViewSpec:
    """
    A crop of the camera image that the network sees beside the whole: far things, larger.

    name: for people. center_x, center_y: of the crop, in fractions of the image, 0 to 1.
    width: of the crop, in fractions of the image's width, in (0, 1]. Its height follows from the
    network's aspect. Where the image ends, the crop is shifted inwards, then cut.
    """

    name: str
    center_x: float = 0.5
    center_y: float = 0.56
    width: float = 0.5


def view_problem(views: tuple[ViewSpec, ...]) -> str:
    """Return what is wrong with the views of a bundle or recipe, '' = nothing."""
    if len(views) > MOST_VIEWS:
        return f'{len(views)} views, at most {MOST_VIEWS} go through the network beside the image'
    names = [view.name for view in views]
    if len(set(names)) != len(names) or not all(names):
        return f'views {names} need a name each, no two the same'
    for view in views:
        if not (0 <= view.center_x <= 1 and 0 <= view.center_y <= 1 and 0 < view.width <= 1):
            return f'view {view.name!r}: center_x, center_y must be in [0, 1] and width in (0, 1]'
    return ''


def view_geometry(view: ViewSpec, camera_size: Size, input_size: Size) -> Geometry:
    """Return how a crop of a camera image (height, width) comes to the network input (h, w)."""
    height, width = camera_size
    columns = max(1, min(width, round(view.width * width)))
    rows = max(1, min(height, round(columns * input_size[0] / input_size[1])))
    left = min(max(round(view.center_x * width - columns / 2), 0), width - columns)
    top = min(max(round(view.center_y * height - rows / 2), 0), height - rows)
    scale_y, scale_x = input_size[0] / rows, input_size[1] / columns
    return Geometry(
        *camera_size, *input_size, scale_x, scale_y, -left * scale_x, -top * scale_y
    )  # fmt: skip


def merged(
    whole: Float32Array, views: Sequence[Float32Array], geometries: Sequence[Geometry]
) -> Float32Array:
    """
    Return the scores of all views on the grid of the first: the most anomalous one counts.

    whole: float32 (gh, gw), scores of the whole image. views: the other views' scores, of the same
    shape. geometries: of the whole image, then of every view. A view counts in the cells whose
    centre it holds, bilinearly between its own cells' centres; nothing in the image is ever less
    anomalous for being seen twice, so an object that a crop cuts in two stays found.
    """
    result = whole
    for scores, geometry in zip(views, geometries[1:], strict=True):
        result = np.maximum(result, on_grid(scores, geometry, geometries[0]))
    return result


def on_grid(scores: Float32Array, view: Geometry, whole: Geometry) -> Float32Array:
    """Return a view's scores (gh, gw) on the whole image's grid, -inf where it does not reach."""
    across, down, inside = _places(view, whole, (scores.shape[0], scores.shape[1]))
    seen = cv2.remap(scores, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(inside, seen, np.float32(-np.inf))


@lru_cache(maxsize=32)
def _places(
    view: Geometry, whole: Geometry, size: Size
) -> tuple[Float32Array, Float32Array, BoolArray]:
    """
    Return where the whole grid's cell centres lie in the view's grid, and which lie in it.

    Returns float32 (gh, gw) columns and rows in cells of the view, and bool (gh, gw).
    """
    x, y = cell_centres(whole, size)
    columns = (x * view.scale_x + view.offset_x) * (size[1] / view.width) - 0.5
    rows = (y * view.scale_y + view.offset_y) * (size[0] / view.height) - 0.5
    across, down = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    inside = (across >= -0.5) & (across < size[1] - 0.5) & (down >= -0.5) & (down < size[0] - 0.5)
    places = across, down, inside & grid_valid(whole, size)
    for array in places:
        array.setflags(write=False)
    return places
