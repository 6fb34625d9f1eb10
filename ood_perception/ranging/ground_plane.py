# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Bearing, elevation and distance of pixels on a horizontal plane below the camera, with errors.

The *level* frame has its origin in the camera, z up against gravity, x along the base's forward
axis laid level, y to the left. Bearing is atan2(y, x): 0 straight ahead, positive to the *left*
(counter-clockwise from above, REP-103). Elevation is positive above the level. Radians, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ood_perception.image.geometry import Points
from ood_perception.ranging.attitude import Attitude, Mounting, dip
from ood_perception.ranging.camera_model import CameraModel
from ood_perception.ranging.lens import Vectors
from ood_perception.types import UInt8Array

_HALF_PIXEL = 0.5
_HORIZON_SAMPLES = 2001


class Status(IntEnum):
    """Why a distance is given or not; the values are part of the ROS interface."""

    KNOWN = 0
    AT_MOST = 1  # cut off by the image or an ignored area: it is at most this far away
    NO_ATTITUDE = 2
    NO_HEIGHT = 3  # the camera's height above the plane is not above 0
    ABOVE_HORIZON = 4
    NEAR_HORIZON = 5  # so near that the uncertainty is too large
    OUTSIDE_LENS = 6  # beyond what the lens model covers


@dataclass(frozen=True)
class Viewpoint:
    """
    How one image was seen.

    attitude: None = not known: bearings and elevations are then those of a level base, and there
        are no distances.
    base_height: of the base frame's origin above the plane, metres. height_sigma: standard
        deviation of the camera's height. pixel_sigma: of a point in the image, in pixels.
    largest_ratio: a distance is given while sigma / distance is at most this.
    """

    camera: CameraModel
    mounting: Mounting
    attitude: Attitude | None = None
    base_height: float = 0.0
    height_sigma: float = 0.0
    pixel_sigma: float = 1.0
    largest_ratio: float = 0.3

    @cached_property
    def level_in_base(self) -> Vectors:
        """float64 (3, 3): rows are the level frame's axes in base coordinates."""
        up = np.array([0.0, 0.0, 1.0]) if self.attitude is None else self.attitude.up
        forward = np.array([1.0, 0.0, 0.0]) - up[0] * up
        forward = forward / np.linalg.norm(forward)
        return np.stack([forward, np.cross(up, forward), up])

    @cached_property
    def level_from_optical(self) -> Vectors:
        """float64 (3, 3): turns optical into level coordinates."""
        return self.level_in_base @ self.mounting.rotation

    @property
    def height(self) -> float:
        """The camera's height above the plane in metres; a tilted base lifts a camera ahead."""
        return float(self.level_in_base[2] @ self.mounting.position) + self.base_height


@dataclass(frozen=True)
class Places:
    """
    Where N pixels are, float64 (N,) each but status, uint8 (N,), and points.

    bearing, elevation: radians; their sigmas likewise. distance: metres along the plane from the
    point below the camera, NaN unless status is KNOWN (or AT_MOST); distance_sigma likewise.
    points: float64 (N, 3), the points of the plane in *base* coordinates, NaN without distance.
    """

    bearing: Vectors
    elevation: Vectors
    bearing_sigma: Vectors
    elevation_sigma: Vectors
    distance: Vectors
    distance_sigma: Vectors
    status: UInt8Array
    points: Vectors


def directions(view: Viewpoint, pixels: Points) -> tuple[Vectors, Vectors]:
    """Return bearing and elevation of pixels (N, 2), edge coordinates: radians, (N,) each."""
    x, y, z = (view.camera.rays(pixels) @ view.level_from_optical.T).T
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def locate(view: Viewpoint, pixels: Points) -> Places:
    """
    Return where pixels look, and how far away they are if they lie on the plane.

    pixels: (N, 2) of x, y in edge coordinates of the image.

    distance = h / tan(d) for the camera's height h and the ray's depression d = -elevation. To
    first order its variance is (h / sin^2 d)^2 var(d) + var(h) / tan^2 d, where var(d) adds those
    of pixel and attitude: it grows without bound towards the horizon, where none is given.
    """
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    bearing, elevation = directions(view, pixels)
    bearing_slope, elevation_slope = _slopes(view, pixels)
    tilt = 0.0 if view.attitude is None else view.attitude.sigma
    elevation_sigma = np.hypot(elevation_slope * view.pixel_sigma, tilt)
    bearing_sigma = np.hypot(bearing_slope * view.pixel_sigma, np.tan(elevation) * tilt)
    height = view.height
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = height / np.tan(-elevation)
        by_angle = height / np.sin(elevation) ** 2 * elevation_sigma
        distance_sigma = np.hypot(by_angle, view.height_sigma / np.tan(-elevation))
        unsure = ~(distance_sigma <= view.largest_ratio * distance)
    status = np.full(len(pixels), Status.KNOWN, dtype=np.uint8)
    status[unsure] = Status.NEAR_HORIZON
    status[elevation >= 0.0] = Status.ABOVE_HORIZON
    if not height > 0.0:
        status[:] = Status.NO_HEIGHT
    if view.attitude is None:
        status[:] = Status.NO_ATTITUDE
    status[np.isnan(elevation)] = Status.OUTSIDE_LENS
    unknown = status != Status.KNOWN
    distance[unknown] = distance_sigma[unknown] = np.nan
    points = _points(view, bearing, distance)
    sigmas = bearing_sigma, elevation_sigma
    return Places(bearing, elevation, *sigmas, distance, distance_sigma, status, points)


def horizon_rows(
    view: Viewpoint, columns: npt.NDArray[np.float64], margin: float = 0.0
) -> Vectors:
    """
    Return the row of the sea horizon (dip included) at each column, in edge coordinates.

    columns: float64 (N,), edge coordinates. margin: by how much higher, radians. Returns float64
    (N,), possibly outside the image; NaN where the horizon is not available: no attitude, or a
    camera that is tilted over.
    """
    if view.attitude is None:
        return np.full(len(columns), np.nan)
    ahead = view.level_from_optical[:, 2]
    around = np.linspace(-np.pi / 2, np.pi / 2, _HORIZON_SAMPLES) + np.arctan2(ahead[1], ahead[0])
    below = dip(view.height) - margin
    level = np.column_stack([np.cos(around), np.sin(around), np.full(len(around), -np.tan(below))])
    points = view.camera.project(level @ view.level_from_optical)
    points = points[np.isfinite(points).all(axis=1)][::-1]  # from left to right
    if len(points) < 2 or not (np.diff(points[:, 0]) > 0.0).all():
        return np.full(len(columns), np.nan)
    return np.interp(columns, points[:, 0], points[:, 1], left=np.nan, right=np.nan)


def _slopes(view: Viewpoint, pixels: Points) -> tuple[Vectors, Vectors]:
    """Return by how much bearing and elevation change per pixel, (N,) each, >= 0."""
    squares = []
    for step in ((_HALF_PIXEL, 0.0), (0.0, _HALF_PIXEL)):
        before, after = directions(view, pixels - step), directions(view, pixels + step)
        turned = np.remainder(after[0] - before[0] + np.pi, 2 * np.pi) - np.pi
        squares.append((turned**2, (after[1] - before[1]) ** 2))
    (across, rise), (along, fall) = squares
    return np.sqrt(across + along), np.sqrt(rise + fall)


def _points(view: Viewpoint, bearing: Vectors, distance: Vectors) -> Vectors:
    """Return the points of the plane in base coordinates, (N, 3)."""
    below = np.full(len(distance), -view.height)
    level = np.column_stack([distance * np.cos(bearing), distance * np.sin(bearing), below])
    level[np.isnan(distance)] = np.nan
    return level @ view.level_in_base + view.mounting.position
