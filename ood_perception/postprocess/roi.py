# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which cells of the score grid are scored: ground, its edge, polygons, labels, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import Points, Size, cell_centres, grid_valid
from ood_perception.postprocess.roi_files import CameraMasks, Polygon, mask_cells, polygon_problem
from ood_perception.types import BoolArray, Geometry, UInt8Array

MODES = ('ground', 'polygon', 'mask', 'labels', 'below_edge', 'below_horizon', 'none')
# A patch of ground below this share of the largest one does not stretch the hull. An obstacle
# across the road cuts its far end off: that end must stay in, so the share is small.
SMALLEST_GROUND = 0.01
Rows = npt.NDArray[np.intp]
CameraPolygons = Mapping[str, tuple[Polygon, ...]]


@dataclass(frozen=True)
class RoiSettings:
    """
    The region of interest.

    mode: 'ground' scores the convex hull of the ground classes (what lies on the road is inside
        the road's hull), 'polygon' the polygons, 'mask' the masks' non-zero pixels (a conveyor),
        'labels' the cells with those classes alone, 'none' the whole image. 'below_edge' scores
        all from the far edge of the ground down, column by column, 'below_horizon' all below the
        frame's horizon ('below_edge' where it has none).
    classes: names for 'ground', 'labels' and 'below_edge'; () = the bundle's ground classes. A
        bundle that has none (products on a line) is scored whole.
    bridge: for 'below_edge': what stands on the ground with ground left and right of it is scored,
        however wide; what reaches the image's side is scored if it is narrower than this share
        of the width, else it is where the ground ends. In [0, 1].
    margin: for 'below_edge' and 'below_horizon': nothing less than this share of the image's
        height below the edge or the horizon is scored. In [0, 1].
    polygons: scored areas per camera for 'polygon'; those under '' hold for every camera. A camera
        with none is scored whole.
    masks: drawn regions per camera for 'mask'; the one under '' holds for cameras without one.
    ignore_polygons: areas never scored, whatever the mode (the own bonnet), same form as polygons.

    A polygon is ((x, y), ...) with x, y from 0 to 1: shares of the image's width and height.
    Several are united. Raises ConfigError for an unknown mode or a polygon that is none.
    """

    mode: str = 'ground'
    classes: tuple[str, ...] = ()
    polygons: CameraPolygons = field(default_factory=dict)
    ignore_polygons: CameraPolygons = field(default_factory=dict)
    masks: CameraMasks = field(default_factory=dict)
    bridge: float = 0.15
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f'roi mode {self.mode!r}: choose one of {", ".join(MODES)}')
        if self.mode == 'polygon' and not any(self.polygons.values()):
            raise ConfigError('roi mode is polygon and no polygon is given: add one, or use none')
        if self.mode == 'mask' and not self.masks:
            raise ConfigError('roi mode is mask and no mask is given: add one, or use none')
        if not 0.0 <= self.bridge <= 1.0:
            raise ConfigError(f'roi bridge {self.bridge:g}: give a share of the width, 0 to 1')
        if not 0.0 <= self.margin <= 1.0:
            raise ConfigError(f'roi margin {self.margin:g}: give a share of the height, 0 to 1')
        for polygons in (*self.polygons.values(), *self.ignore_polygons.values()):
            for polygon in polygons:
                if problem := polygon_problem(polygon):
                    raise ConfigError(f'polygon {polygon}: {problem}')


def fixed_region(
    settings: RoiSettings, camera: str, geometry: Geometry, grid_size: Size
) -> BoolArray:
    """
    Return what never changes between frames: bool (gh, gw), cells that may be scored.

    True where the cell's centre lies in the image, inside the camera's polygons (mode 'polygon')
    or mask (mode 'mask'), and outside its ignore polygons. Raises ImageError where the mask is not
    of the image's aspect.
    """
    region = grid_valid(geometry, grid_size)
    included = _of_camera(settings.polygons, camera)
    if settings.mode == 'polygon' and included:
        region &= polygon_cells(included, geometry, grid_size)
    mask = settings.masks.get(camera, settings.masks.get(''))
    if settings.mode == 'mask' and mask is not None:
        region &= mask_cells(mask, geometry, grid_size)
    ignored = _of_camera(settings.ignore_polygons, camera)
    if ignored:
        region &= ~polygon_cells(ignored, geometry, grid_size)
    return region


def scored_region(
    mode: str,
    labels: UInt8Array,
    fixed: BoolArray,
    chosen: BoolArray,
    bridge: float = 0.15,
    below: BoolArray | None = None,
    margin: float = 0.0,
) -> BoolArray:
    """
    Return the cells to score in one frame, a subset of `fixed`.

    mode: one of MODES. labels: uint8 (gh, gw) class ids. fixed: bool (gh, gw) of fixed_region.
    chosen: bool (256,), True at the ids of the region's classes; none at all = no
    class bounds the region. bridge, margin: see RoiSettings.
    below: bool (gh, gw), below the frame's horizon; None where it has none.
    """
    if mode == 'below_horizon' and below is not None:
        return fixed & lowered(below, margin)
    if not chosen.any():
        return fixed
    if mode in ('below_edge', 'below_horizon'):
        seen = fixed if below is None else fixed & below
        ground = large_patches(chosen[labels] & seen)
        region = below_edge(ground, bridge, below, np.asarray(fixed.any(axis=0)))
        return lowered(region, margin) & seen
    if mode == 'ground':
        return ground_hull(chosen[labels] & fixed) & fixed
    if mode == 'labels':
        return chosen[labels] & fixed
    return fixed


def ground_hull(ground: BoolArray) -> BoolArray:
    """
    Return the cells of the convex hull of the ground, as NFlowJS's ground focus does.

    ground: bool (gh, gw). Connected patches (8 neighbours) smaller than SMALLEST_GROUND of the
    largest one are left out first, since one stray cell on a roof would take the whole image in.
    Returns bool (gh, gw), a superset of the patches kept; all False where there is no ground.
    """
    kept = large_patches(ground)
    rows = np.flatnonzero(kept.any(axis=1))
    filled = np.zeros(ground.shape, dtype=np.uint8)
    if rows.size == 0:
        return filled.astype(bool)
    # The outermost cells of each row have the same hull as all cells.
    first = kept[rows].argmax(axis=1)
    last = ground.shape[1] - 1 - kept[rows, ::-1].argmax(axis=1)
    points = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
    hull = cv2.convexHull(points.astype(np.int32)).reshape(-1, 2)
    cv2.fillConvexPoly(filled, hull, 1)
    return filled.astype(bool)


def class_table(ids: Sequence[int]) -> BoolArray:
    """Return bool (256,), True at the given class ids."""
    table = np.zeros(256, dtype=bool)
    table[list(ids)] = True
    return table


def polygon_cells(polygons: Sequence[Polygon], geometry: Geometry, grid_size: Size) -> BoolArray:
    """Return bool (gh, gw): cells whose centre lies inside one of the polygons (even-odd rule)."""
    x, y = cell_centres(geometry, grid_size)
    x, y = x / geometry.camera_width, y / geometry.camera_height
    inside = np.zeros(grid_size, dtype=bool)
    for polygon in polygons:
        inside |= _inside(polygon, x, y)
    return inside


def _inside(polygon: Polygon, x: Points, y: Points) -> BoolArray:
    """
    Return where a ray to the right crosses the outline an odd number of times, bool (H, W).

    x: float64 (W,), ascending. y: float64 (H,). Row by row, so that 10 000 corners take no time.
    """
    starts = np.array(polygon)
    (x0, y0), (x1, y1) = starts.T, np.roll(starts, -1, axis=0).T
    odd = np.zeros((len(y), len(x)), dtype=bool)
    for row, level in enumerate(y):
        met = (y0 <= level) != (y1 <= level)
        slopes = (x1[met] - x0[met]) / (y1[met] - y0[met])
        crossings = np.sort(x0[met] + (level - y0[met]) * slopes)
        beyond = len(crossings) - np.searchsorted(crossings, x, side='right')
        odd[row] = beyond % 2 == 1
    return odd


def large_patches(ground: BoolArray) -> BoolArray:
    """Return the connected patches, bool (gh, gw), that are no specks beside the largest one."""
    count, patches, stats, _ = cv2.connectedComponentsWithStats(
        ground.view(np.uint8), None, None, None, 8
    )
    if count <= 2:
        return ground
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the background
    keep: BoolArray = areas >= max(1.0, SMALLEST_GROUND * float(areas.max()))
    large: BoolArray = keep[patches]
    return large


def _of_camera(polygons: CameraPolygons, camera: str) -> tuple[Polygon, ...]:
    """Return the polygons of every camera and those of this one."""
    named = polygons.get(camera, ()) if camera else ()
    return (*polygons.get('', ()), *named)


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
    every column: heights are then counted from it, so that a tilted image is filled aslant.
    seen: bool (gw,), columns that are looked at; the others stay as they are and count for
    nothing. None = all.

    What interrupts the ground with ground left and right of it is filled, however wide, up to the
    lower of the two sides; what reaches the image's side is filled if it is narrower than the
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
    Return the cells below a line across the image, bool (gh, gw), by their centres.

    line: float64 (n, 2), points x, y in camera pixels, x rising, e.g. the horizon; straight
        between them and level beyond the ends. A NaN cuts nothing off there.
    """
    x, y = cell_centres(geometry, grid_size)
    limit = np.interp(x, line[:, 0], line[:, 1])
    cells: BoolArray = ~(y[:, None] < limit[None, :])
    return cells
