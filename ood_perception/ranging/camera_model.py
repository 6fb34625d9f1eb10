# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From pixels to rays and back: the camera that a sensor_msgs/CameraInfo describes, ROS-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ood_perception.errors import CalibrationError
from ood_perception.image.geometry import Points, Size, scaled_intrinsics
from ood_perception.ranging.lens import Lens, Polynomial, Vectors, lens_for


@dataclass(frozen=True)
class Calibration:
    """
    The values of a CameraInfo.

    height, width: the calibrated image in pixels, before binning and cutting.
    model, d: distortion. k: row-major 3 x 3 of the raw image. p: row-major 3 x 4 of the
    rectified one. binning: (x, y), 0 = 1. roi: (left, top, width, height) in unbinned pixels,
    all 0 = the whole image.
    """

    height: int
    width: int
    model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    p: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (1, 1)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def bins(self) -> tuple[int, int]:
        """(x, y): unbinned pixels in one of the image's, at least 1."""
        return max(1, self.binning[0]), max(1, self.binning[1])

    @property
    def image_size(self) -> Size:
        """(height, width) of the image: the region's, in whole binned pixels; 0 = unknown."""
        _, _, width, height = self.roi
        x, y = self.bins
        return (height or self.height) // y, (width or self.width) // x

    def resized(self, matrix: Sequence[float], size: Size) -> list[float]:
        """
        Return K or P, row-major, for the image resized to (height, width), alone and whole.

        What a consumer of CameraInfo (image_geometry) makes of K and P is scaled: less the
        region's offset, then divided by the binning. All zeros (not calibrated) stay.
        """
        height, width = self.image_size
        if not any(matrix) or not height or not width:
            return [float(value) for value in matrix]
        image = np.array(matrix, dtype=np.float64).reshape(3, -1)
        image[:2, 2] -= self.roi[:2]
        image[:2] /= np.array(self.bins)[:, None]
        scale = size[1] / width, size[0] / height
        return [float(value) for value in scaled_intrinsics(image.reshape(-1), *scale)]


def calibration_of(info: Any) -> Calibration:
    """Return a sensor_msgs/CameraInfo, of rclpy or of a bag, as plain values."""
    roi = info.roi
    return Calibration(
        height=info.height,
        width=info.width,
        model=info.distortion_model,
        d=tuple(map(float, info.d)),
        k=tuple(map(float, info.k)),
        p=tuple(map(float, info.p)),
        binning=(info.binning_x, info.binning_y),
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
    )


@dataclass(frozen=True)
class CameraModel:
    """
    A calibrated camera at the size of the image at hand.

    height, width: the image in pixels. fx, fy, cx, cy, skew: K in pixels, where a pixel's
    centre has whole coordinates as CameraInfo has it. lens: the distortion.
    """

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float
    skew: float
    lens: Lens

    def rays(self, points: Points) -> Vectors:
        """
        Return the unit rays of points of the image, float64 (N, 3) in the optical frame.

        points: (N, 2) of x, y in *edge* coordinates (pixel j covers [j, j + 1), as everywhere in
        this package). NaN where the lens cannot have been hit from.
        """
        pixels = np.asarray(points, dtype=np.float64).reshape(-1, 2) - 0.5
        y = (pixels[:, 1] - self.cy) / self.fy
        x = (pixels[:, 0] - self.cx - self.skew * y) / self.fx
        return self.lens.undistort(np.column_stack([x, y]))

    def project(self, rays: Vectors) -> Points:
        """
        Return where rays, float64 (N, 3) of any length, land in the image: rays' inverse.

        (N, 2) of x, y in edge coordinates, also outside the image; NaN where the lens does not
        reach.
        """
        plane = self.lens.distort(np.asarray(rays, dtype=np.float64).reshape(-1, 3))
        x = self.fx * plane[:, 0] + self.skew * plane[:, 1] + self.cx
        y = self.fy * plane[:, 1] + self.cy
        return np.column_stack([x, y]) + 0.5


def camera_model(info: Calibration, size: Size, rectified: bool = False) -> CameraModel:
    """
    Return the camera for images of a size (height, width).

    rectified: the images are undistorted (image_rect): P counts instead of K and d.

    An image of another size is taken to be the calibrated one resized, if the aspect is the same.
    Raises CalibrationError, naming value and remedy, for an uncalibrated CameraInfo (K or P zero),
    an unknown distortion, and a size that cannot come from resizing.
    """
    matrix, name = _matrix(info, rectified), 'P' if rectified else 'K'
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0:
        raise CalibrationError(
            f'CameraInfo {name} has the focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}: the '
            'camera is not calibrated; run a calibration, or give the driver its file'
        )
    lens = Polynomial() if rectified else lens_for(info.model, info.d)
    scale_x, scale_y = _scale(info, size)
    left, top, _, _ = info.roi
    matrix[:2, 2] -= left, top
    scaled = scaled_intrinsics(matrix.reshape(-1), scale_x, scale_y).reshape(3, 3)
    (fx, skew, cx), (_, fy, cy) = scaled[:2].tolist()
    return CameraModel(*size, fx, fy, cx, cy, skew, lens)


def _matrix(info: Calibration, rectified: bool) -> Points:
    """Return the 3 x 3 matrix that maps rays to pixels."""
    values = info.p if rectified else info.k
    if len(values) != (12 if rectified else 9):
        raise CalibrationError(f'CameraInfo has {len(values)} values in K or P: 9 or 12 belong in')
    return np.array(values, dtype=np.float64).reshape(3, -1)[:, :3].copy()


def _scale(info: Calibration, size: Size) -> tuple[float, float]:
    """Return image pixels per calibrated pixel, x and y, binning included."""
    _, _, roi_width, roi_height = info.roi
    width, height = roi_width or info.width, roi_height or info.height
    if width <= 0 or height <= 0:
        raise CalibrationError(
            f'CameraInfo is for {info.width}x{info.height} pixels: without a size it fits no '
            'image; have the driver fill width and height'
        )
    # Binned images have whole pixels; what falls off the edge is not stretched.
    if info.image_size == size:
        return 1 / info.bins[0], 1 / info.bins[1]
    expected = size[0] * width / height, size[1] * height / width
    if abs(size[1] - expected[0]) > 1.0 and abs(size[0] - expected[1]) > 1.0:
        raise CalibrationError(
            f'CameraInfo is for {width}x{height} pixels and the image has {size[1]}x{size[0]}: '
            'another aspect, so it was cut or stretched in an unknown way; publish a CameraInfo '
            'for this image'
        )
    return size[1] / width, size[0] / height
