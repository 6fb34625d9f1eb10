# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Camera image <-> network input <-> score grid, and the one resize filter, training included.

An image is first cut ('fill') or padded ('fit') by whole camera pixels to a *canvas* of the
network's aspect, then the canvas is resized edge to edge to the network input. The score grid
lies edge to edge over the same canvas, so the way back is one resize and one crop. Points are in
edge coordinates: pixel (i, j) covers [j, j + 1) x [i, i + 1), its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError, ImageError
from ood_perception.types import BoolArray, Geometry, UInt8Array

POLICIES = ('fit', 'fill', 'stretch')
PAD_COLOR = (124, 116, 104)  # ImageNet's mean colour: zero after the usual normalisation
IGNORED_LABEL = 255
MAXIMUM_PIXELS = 100_000_000
# Up to so many pixels into one, a bilinear sample weighs each as its area would within 0.2 (5 into
# 4: 0.08), for a fifth of the time: 0.8 ms of a core in the place of 4.2 from 960x540 pixels.
_ALMOST_AREA = 1.25

Size = tuple[int, int]
Points = npt.NDArray[np.float64]
T = TypeVar('T', bound=np.generic)


def geometry_for(
    camera_size: Size, input_size: Size, policy: str = 'fit', anchor: float = 0.5
) -> Geometry:
    """
    Return how a camera image is brought to the network input.

    camera_size, input_size: (height, width) in pixels.
    policy: 'fit' keeps the aspect and pads, 'fill' keeps it and crops, 'stretch' does neither.
        The aspect is kept to the nearest whole camera pixel.
    anchor: where the image lies when padded or cropped, 0 = left/top, 1 = right/bottom.

    Raises ConfigError for an unknown policy, an anchor outside [0, 1] or an empty size, and
    ImageError for an image whose canvas would have more than MAXIMUM_PIXELS.
    """
    if policy not in POLICIES:
        raise ConfigError(f'resize policy {policy!r}: choose one of {", ".join(POLICIES)}')
    if not 0.0 <= anchor <= 1.0:
        raise ConfigError(f'resize anchor {anchor}: give a number from 0 (left/top) to 1')
    if min(*camera_size, *input_size) < 1:
        raise ConfigError(f'image size {camera_size} or input size {input_size} is empty')
    canvas_height, canvas_width = _canvas_size(camera_size, input_size, policy)
    if canvas_height * canvas_width > MAXIMUM_PIXELS:
        raise ImageError(
            f'image of {camera_size[0]} x {camera_size[1]} pixels becomes {canvas_height} x '
            f'{canvas_width} when brought to the shape of the network input: it is too large, or '
            'too long and thin for the policy'
        )
    scale_y, scale_x = input_size[0] / canvas_height, input_size[1] / canvas_width
    top = int(np.floor(anchor * (canvas_height - camera_size[0]) + 0.5))
    left = int(np.floor(anchor * (canvas_width - camera_size[1]) + 0.5))
    return Geometry(*camera_size, *input_size, scale_x, scale_y, left * scale_x, top * scale_y)


def to_network(image: UInt8Array, geometry: Geometry, labels: bool = False) -> UInt8Array:
    """
    Bring a camera image or a label map to the network input.

    image: uint8 (H, W, 3) or (H, W), of the geometry's camera size.
    labels: sample nearest at pixel centres and pad with 255, instead of averaging colours and
        padding with PAD_COLOR.

    Returns uint8 (h, w, 3) or (h, w), C-contiguous. Raises ImageError for another size or type.
    """
    size = (geometry.camera_height, geometry.camera_width)
    if image.dtype != np.uint8 or image.shape[:2] != size or image.shape[2:] not in ((), (3,)):
        raise ImageError(
            f'image is {image.dtype} {image.shape}, expected uint8 {size} with 1 or 3 channels'
        )
    if labels:
        return _labels_to_network(image, geometry)
    return _resize(_on_canvas(image, geometry), (geometry.height, geometry.width))


def to_camera(grid: npt.NDArray[T], geometry: Geometry) -> npt.NDArray[T]:
    """
    Interpolate a grid bilinearly to the camera image (cell centres to pixel centres).

    grid: float32 (gh, gw), free of NaN, or uint8 (gh, gw, 3). Returns (H, W) or (H, W, 3) of the
    same type; beyond the outermost cell centres, and outside a cropped network input, the border
    cells are repeated (see camera_window).
    """
    top, left, height, width = _canvas(geometry)
    canvas: npt.NDArray[T] = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = camera_window(geometry)
    inside = canvas[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
    if inside.shape[:2] == (geometry.camera_height, geometry.camera_width):
        return np.ascontiguousarray(inside)
    below, after = geometry.camera_height - rows.stop, geometry.camera_width - columns.stop
    border = (rows.start, below, columns.start, after)
    padded: npt.NDArray[T] = cv2.copyMakeBorder(inside, *border, cv2.BORDER_REPLICATE)
    return padded


def to_camera_nearest(
    grid: npt.NDArray[T], geometry: Geometry, out: npt.NDArray[T] | None = None
) -> npt.NDArray[T]:
    """
    Repeat the grid's cells to the camera image: each pixel takes the cell that holds its centre.

    grid: (gh, gw) of any type. out: memory for the result, or None. Returns (H, W) of the same
    type; outside a cropped network input the border cells are repeated.
    """
    rows, columns = _cells_of_pixels(geometry, (grid.shape[0], grid.shape[1]))
    lines = np.ascontiguousarray(grid[:, columns])
    # 'clip' (nothing is outside) lets numpy write into `out` itself.
    return np.take(lines, rows, axis=0, out=out, mode='clip')


def labels_to_grid(labels: UInt8Array, grid_size: Size) -> UInt8Array:
    """
    Sample a label map of the network input at the centres of the grid's cells.

    labels: uint8 (h, w). grid_size: (gh, gw). Returns uint8 (gh, gw). A centre on the border of
    two pixels takes the right/lower one.
    """
    rows = _nearest(grid_size[0], labels.shape[0])
    columns = _nearest(grid_size[1], labels.shape[1])
    return np.take(np.ascontiguousarray(labels[:, columns]), rows, axis=0)


def grid_valid(geometry: Geometry, grid_size: Size) -> BoolArray:
    """Return bool (gh, gw): cells whose centre lies in the image and not in the padding."""
    top, left, height, width = _canvas(geometry)
    rows = _centres(grid_size[0], height) - top
    columns = _centres(grid_size[1], width) - left
    inside_y = (rows >= 0) & (rows < geometry.camera_height)
    inside_x = (columns >= 0) & (columns < geometry.camera_width)
    return inside_y[:, None] & inside_x[None, :]


def camera_area_of_cell(geometry: Geometry, grid_size: Size) -> float:
    """Return the area of one grid cell in camera pixels, > 0."""
    _, _, height, width = _canvas(geometry)
    return (width / grid_size[1]) * (height / grid_size[0])


def camera_window(geometry: Geometry) -> tuple[slice, slice]:
    """Return the rows and columns of the camera image that the network sees."""
    top, left, height, width = _canvas(geometry)
    rows = slice(max(0, -top), min(geometry.camera_height, height - top))
    return rows, slice(max(0, -left), min(geometry.camera_width, width - left))


def for_output(geometry: Geometry, size: Size) -> Geometry:
    """
    Return the geometry of the same view at another image size (height, width).

    The image keeps its size exactly; what is cut or padded is rounded to whole pixels.
    """
    top, left, height, width = _canvas(geometry)
    y, x = size[0] / geometry.camera_height, size[1] / geometry.camera_width
    top, bottom = round(top * y), round((height - top - geometry.camera_height) * y)
    left, right = round(left * x), round((width - left - geometry.camera_width) * x)
    scale_y = geometry.height / max(1, size[0] + top + bottom)
    scale_x = geometry.width / max(1, size[1] + left + right)
    inner = (geometry.height, geometry.width)
    return Geometry(*size, *inner, scale_x, scale_y, left * scale_x, top * scale_y)


def grid_to_camera(points: Points, geometry: Geometry, grid_size: Size) -> Points:
    """Map (..., 2) points (x, y) from grid cells to camera pixels, in edge coordinates."""
    cells = (grid_size[1] / geometry.width, grid_size[0] / geometry.height)
    offset, scale = (geometry.offset_x, geometry.offset_y), (geometry.scale_x, geometry.scale_y)
    return (np.asarray(points) / cells - offset) / scale


def cell_centres(geometry: Geometry, grid_size: Size) -> tuple[Points, Points]:
    """Return x, float64 (gw,), and y, (gh,), of the grid cells' centres in camera pixels."""
    rows, columns = (np.arange(count) + 0.5 for count in grid_size)
    x = grid_to_camera(np.column_stack([columns, columns]), geometry, grid_size)[:, 0]
    y = grid_to_camera(np.column_stack([rows, rows]), geometry, grid_size)[:, 1]
    return x, y


def scaled_intrinsics(matrix: Points, scale_x: float, scale_y: float) -> Points:
    """
    Scale a CameraInfo's K (9 values) or P (12 values), row-major, for a resized image.

    scale_x, scale_y: output pixels per input pixel. Pixel centres have whole coordinates in
    CameraInfo, so the principal point moves as c' = (c + 0.5) * scale - 0.5; the focal lengths
    and P's translation column scale by the factor alone.
    """
    scaled = np.array(matrix, dtype=np.float64).reshape(3, -1)
    scaled[0] *= scale_x
    scaled[1] *= scale_y
    scaled[:2, 2] += (0.5 * scale_x - 0.5, 0.5 * scale_y - 0.5)
    return scaled.reshape(-1)


def _canvas_size(camera_size: Size, input_size: Size, policy: str) -> Size:
    """Return (height, width) of the canvas in camera pixels."""
    height, width = camera_size
    if policy == 'stretch':
        return height, width
    ratio = input_size[1] / input_size[0]
    too_tall = width < height * ratio
    if too_tall == (policy == 'fit'):
        return height, max(1, int(np.floor(height * ratio + 0.5)))
    return max(1, int(np.floor(width / ratio + 0.5))), width


def _canvas(geometry: Geometry) -> tuple[int, int, int, int]:
    """Return (top, left, height, width): where the image lies on its canvas, negative = cut."""
    return (
        round(geometry.offset_y / geometry.scale_y),
        round(geometry.offset_x / geometry.scale_x),
        round(geometry.height / geometry.scale_y),
        round(geometry.width / geometry.scale_x),
    )


def _on_canvas(image: UInt8Array, geometry: Geometry) -> UInt8Array:
    """Return the image cut and padded to the canvas; a view where nothing is padded."""
    top, left, height, width = _canvas(geometry)
    rows, columns = camera_window(geometry)
    cut = image[rows, columns]
    if cut.shape[:2] == (height, width):
        return cut
    above, before = max(0, top), max(0, left)
    border = (above, height - above - cut.shape[0], before, width - before - cut.shape[1])
    padded: UInt8Array = cv2.copyMakeBorder(cut, *border, cv2.BORDER_CONSTANT, value=PAD_COLOR)
    return padded


def _resize(image: UInt8Array, size: Size) -> UInt8Array:
    """
    Resize by the one filter: average over areas where it shrinks, bilinear where it hardly does.

    Exact halvings come first: OpenCV averages 2 x 2 pixels several times faster than any other
    area. An average of averages is the average where cells end between the pairs, and near it
    elsewhere. An image that shrinks along one axis and grows along the other shrinks first.
    """
    height, width = image.shape[:2]
    while height >= 2 * size[0] and width >= 2 * size[1] and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if max(width / size[1], height / size[0]) > _ALMOST_AREA:
        width, height = min(width, size[1]), min(height, size[0])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if (width, height) != (size[1], size[0]):
        image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)


def _labels_to_network(labels: UInt8Array, geometry: Geometry) -> UInt8Array:
    """Sample labels at the centres of the network pixels; 255 where there is no image."""
    top, left, height, width = _canvas(geometry)
    rows = _nearest(geometry.height, height) - top
    columns = _nearest(geometry.width, width) - left
    sampled = labels[
        np.clip(rows, 0, geometry.camera_height - 1)[:, None],
        np.clip(columns, 0, geometry.camera_width - 1)[None, :],
    ]
    sampled[(rows < 0) | (rows >= geometry.camera_height)] = IGNORED_LABEL
    sampled[:, (columns < 0) | (columns >= geometry.camera_width)] = IGNORED_LABEL
    return sampled


def _centres(count: int, length: int) -> Points:
    """Return the centres of `count` equal cells over `length` pixels, in edge coordinates."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (length / count)


def _nearest(count: int, length: int) -> npt.NDArray[np.intp]:
    """Return which of `length` pixels holds the centre of each of `count` equal cells."""
    return (2 * np.arange(count) + 1) * length // (2 * count)


@lru_cache(maxsize=16)
def _cells_of_pixels(
    geometry: Geometry, grid_size: Size
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the grid row of every camera row and the grid column of every camera column."""
    top, left, height, width = _canvas(geometry)
    rows = np.clip(np.arange(geometry.camera_height) + top, 0, height - 1)
    columns = np.clip(np.arange(geometry.camera_width) + left, 0, width - 1)
    return _nearest(height, grid_size[0])[rows], _nearest(width, grid_size[1])[columns]
