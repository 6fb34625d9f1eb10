# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/CameraInfo to camera models, made anew only when one changes."""

from __future__ import annotations

from typing import Any

from ood_perception.errors import CalibrationError
from ood_perception.image.geometry import Size
from ood_perception.ranging.camera_model import Calibration, CameraModel, camera_model

Key = tuple[Calibration, Size, bool]


class CameraModels:
    """The model of each camera, or the reason why its CameraInfo gives none."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Key, CameraModel | str]] = {}

    def model(self, camera: str, info: Any, size: Size, rectified: bool) -> CameraModel:
        """
        Return the model of a camera for pictures of a size (height, width).

        info: sensor_msgs/CameraInfo. Raises CalibrationError where it gives no rays.
        """
        key = (calibration_of(info), size, rectified)
        known = self._known.get(camera)
        if known is None or known[0] != key:
            known = (key, _tried(*key))
            self._known[camera] = known
        if isinstance(known[1], str):
            raise CalibrationError(known[1])
        return known[1]


def calibration_of(info: Any) -> Calibration:
    """Return a sensor_msgs/CameraInfo as plain values."""
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


def _tried(info: Calibration, size: Size, rectified: bool) -> CameraModel | str:
    try:
        return camera_model(info, size, rectified)
    except CalibrationError as error:
        return str(error)
