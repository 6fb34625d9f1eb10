# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Lens distortions of sensor_msgs/CameraInfo: where a ray lands, and which ray landed there.

Coordinates are those of CameraInfo's normalised image plane (focal length 1, y down); rays are
in the camera's optical frame (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ood_perception.errors import CalibrationError

Vectors = npt.NDArray[np.float64]

_STEPS = 50
_CONVERGED = 1e-12
# Beyond this radius of the normalised plane (87 degrees off axis) no polynomial lens is sampled.
_LARGEST_RADIUS = 20.0
_SAMPLES = 20001
_WITHIN_FOLD = 0.99


class Lens(Protocol):
    """A distortion: rays to the normalised plane and back; NaN where the lens does not reach."""

    def distort(self, rays: Vectors) -> Vectors:
        """Return where rays, float64 (N, 3) of any length, land: float64 (N, 2)."""

    def undistort(self, points: Vectors) -> Vectors:
        """Return the unit rays, float64 (N, 3), of points (N, 2): distort's inverse."""


@dataclass(frozen=True)
class Polynomial:
    """
    Brown-Conrady distortion: plumb_bob (k4 = k5 = k6 = 0) and rational_polynomial.

    As in OpenCV's camera model: x' = x c + 2 p1 x y + p2 (r^2 + 2 x^2), with y likewise and
    c = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6).
    """

    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0

    @cached_property
    def largest_radius(self) -> float:
        """Where the image folds over: the first radius at which r c(r) stops growing."""
        radii = np.linspace(0.0, _LARGEST_RADIUS, _SAMPLES)
        with np.errstate(all='ignore'):  # poles of a rational lens are folds, too
            factor, slope = self._factor(radii**2)
            growth = factor + 2 * radii**2 * slope
        return _first_fold(radii, np.where(factor > 0.0, growth, 0.0))

    def distort(self, rays: Vectors) -> Vectors:
        """See Lens; NaN behind the camera and beyond largest_radius."""
        ahead = np.where(rays[:, 2] > 0.0, rays[:, 2], np.nan)
        plane = rays[:, :2] / ahead[:, None]
        outside = ~(np.hypot(plane[:, 0], plane[:, 1]) < self.largest_radius)
        bent, _ = self._bend(plane)
        bent[outside] = np.nan
        return bent

    def undistort(self, points: Vectors) -> Vectors:
        """See Lens. Newton's method from the point itself; NaN where it does not converge."""
        with np.errstate(all='ignore'):  # what runs away becomes NaN
            plane = self._unbent(points)
            bent, _ = self._bend(plane)
        missed = ~(np.abs(bent - points).max(axis=1, initial=0.0) < 1e-9)
        missed |= ~(np.hypot(plane[:, 0], plane[:, 1]) < self.largest_radius)
        plane[missed] = np.nan
        rays: Vectors = np.column_stack([plane, np.ones(len(plane))])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        return rays

    def _unbent(self, points: Vectors) -> Vectors:
        """Return where Newton's method ends, (N, 2); it stays on this side of the fold."""
        plane = self._inside(np.array(points, dtype=np.float64))
        for _ in range(_STEPS):
            bent, (xx, xy, yy) = self._bend(plane)
            wrong = bent - points
            if not np.nanmax(np.abs(wrong), initial=0.0) > _CONVERGED:
                break
            determinant = xx * yy - xy * xy
            plane[:, 0] -= (yy * wrong[:, 0] - xy * wrong[:, 1]) / determinant
            plane[:, 1] -= (xx * wrong[:, 1] - xy * wrong[:, 0]) / determinant
            plane = self._inside(plane)
        return plane

    def _inside(self, plane: Vectors) -> Vectors:
        """Return the points, (N, 2), drawn to the middle where they lie beyond the fold."""
        radii = np.hypot(plane[:, 0], plane[:, 1])
        beyond = radii >= self.largest_radius
        scale = np.where(
            beyond, _WITHIN_FOLD * self.largest_radius / np.where(beyond, radii, 1), 1
        )
        return plane * scale[:, None]

    def _factor(self, square: Vectors) -> tuple[Vectors, Vectors]:
        """Return c and its derivative by r^2."""
        over = 1 + square * (self.k1 + square * (self.k2 + square * self.k3))
        under = 1 + square * (self.k4 + square * (self.k5 + square * self.k6))
        over_slope = self.k1 + square * (2 * self.k2 + square * 3 * self.k3)
        under_slope = self.k4 + square * (2 * self.k5 + square * 3 * self.k6)
        return over / under, (over_slope * under - over * under_slope) / under**2

    def _bend(self, plane: Vectors) -> tuple[Vectors, tuple[Vectors, Vectors, Vectors]]:
        """Return the distorted points, (N, 2), and their Jacobian xx, xy = yx, yy, (N,) each."""
        x, y = plane[:, 0], plane[:, 1]
        square = x * x + y * y
        factor, slope = self._factor(square)
        bent_x = x * factor + 2 * self.p1 * x * y + self.p2 * (square + 2 * x * x)
        bent_y = y * factor + self.p1 * (square + 2 * y * y) + 2 * self.p2 * x * y
        xx = factor + 2 * x * x * slope + 2 * self.p1 * y + 6 * self.p2 * x
        xy = 2 * x * y * slope + 2 * self.p1 * x + 2 * self.p2 * y
        yy = factor + 2 * y * y * slope + 6 * self.p1 * y + 2 * self.p2 * x
        return np.column_stack([bent_x, bent_y]), (xx, xy, yy)


@dataclass(frozen=True)
class Equidistant:
    """
    Fisheye distortion (Kannala-Brandt as in OpenCV's fisheye model).

    A ray t radians off the axis lands at radius t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8).
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0

    @cached_property
    def largest_angle(self) -> float:
        """The first angle at which the radius stops growing, at most pi."""
        angles = np.linspace(0.0, np.pi, _SAMPLES)
        return min(_first_fold(angles, self._radius(angles)[1]), np.pi)

    def distort(self, rays: Vectors) -> Vectors:
        """See Lens; NaN beyond largest_angle."""
        across = np.hypot(rays[:, 0], rays[:, 1])
        angles = np.arctan2(across, rays[:, 2])
        angles = np.where(angles < self.largest_angle, angles, np.nan)
        radius, _ = self._radius(angles)
        straight = across > 0.0
        scale = np.where(straight, radius / np.where(straight, across, 1.0), 0.0)
        bent: Vectors = rays[:, :2] * scale[:, None]
        bent[np.isnan(angles)] = np.nan
        return bent

    def undistort(self, points: Vectors) -> Vectors:
        """See Lens. Newton's method on the angle; NaN where it does not converge."""
        radius = np.hypot(points[:, 0], points[:, 1])
        angles = np.minimum(radius, self.largest_angle)
        for _ in range(_STEPS):
            reached, slope = self._radius(angles)
            wrong = reached - radius
            if not np.nanmax(np.abs(wrong), initial=0.0) > _CONVERGED:
                break
            angles = angles - wrong / slope
        missed = ~(np.abs(self._radius(angles)[0] - radius) < 1e-9)
        missed |= ~((angles >= 0.0) & (angles < self.largest_angle))
        angles[missed] = np.nan
        scale = np.sin(angles) / np.where(radius > 0.0, radius, 1.0)
        return np.column_stack([points * scale[:, None], np.cos(angles)])

    def _radius(self, angles: Vectors) -> tuple[Vectors, Vectors]:
        """Return the radius of each angle and its derivative."""
        s = angles * angles
        series = 1 + s * (self.k1 + s * (self.k2 + s * (self.k3 + s * self.k4)))
        slope = 1 + s * (3 * self.k1 + s * (5 * self.k2 + s * (7 * self.k3 + s * 9 * self.k4)))
        return angles * series, slope


def lens_for(model: str, coefficients: tuple[float, ...]) -> Lens:
    """
    Return the lens of a CameraInfo's distortion_model and d.

    An empty model without coefficients is an undistorted image. Raises CalibrationError for a
    model that is not known, and for coefficients that do not fit it.
    """
    if not np.isfinite(coefficients).all():
        raise CalibrationError(f'CameraInfo d is {coefficients}: not all finite, calibrate anew')
    if model in ('', 'none') and not any(coefficients):
        return Polynomial()
    if model not in _MODELS:
        raise CalibrationError(
            f'CameraInfo distortion_model is {model!r}: known are {", ".join(_MODELS)}; '
            'rectify the image (image_proc) and set camera.rectified'
        )
    most, kind = _MODELS[model]
    if any(coefficients[most:]) or 0 < len(coefficients) < 4:
        raise CalibrationError(
            f'CameraInfo d has {len(coefficients)} coefficients: {model} has 4 to {most}, further '
            'ones must be 0; calibrate with this model, or rectify the image'
        )
    return kind(*coefficients[:most])


_MODELS: dict[str, tuple[int, type[Polynomial] | type[Equidistant]]] = {
    'plumb_bob': (5, Polynomial),
    'rational_polynomial': (8, Polynomial),
    'equidistant': (4, Equidistant),
    'fisheye': (4, Equidistant),
}


def _first_fold(places: Vectors, slopes: Vectors) -> float:
    """Return the first place whose slope is not positive, infinity where there is none."""
    folded = np.flatnonzero(~(slopes > 0.0))
    return float(places[folded[0]]) if folded.size else float('inf')
