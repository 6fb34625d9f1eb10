# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bearings and distances of a bag's frames, from its CameraInfo and the node's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ood_perception.errors import CalibrationError, DataError
from ood_perception.parameters.table import RANGE_DEFAULTS
from ood_perception.ranging.attitude import Attitude
from ood_perception.ranging.camera_model import Calibration, calibration_of
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ranges import RangedDetections, ranged_detections
from ood_perception.ranging.viewpoints import Viewpoints
from ood_perception.types import Detection, Tell

from .cameras import CameraTopic
from .reading import Bag

_INFO = 'sensor_msgs/msg/CameraInfo'


class BagRanges:
    """
    Where obstacles are, frame by frame, with the first CameraInfo of each camera.

    A bag's Imu is not read: attitude.source imu gives no distances. `tell` hears once for each
    camera why there are none. possible: whether any are to be expected.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: Sequence[CameraTopic],
        values: Mapping[str, Any],
        tell: Tell,
    ) -> None:
        """values: the node's parameters; ConfigError for one that cannot be read."""
        self._viewpoints = Viewpoints({**RANGE_DEFAULTS, **values}, _no_imu)
        self._calibrations = {camera.camera: _calibration(bag, camera) for camera in cameras}
        self._topics = {camera.camera: camera.info_topic for camera in cameras}
        self._tell, self._told = tell, set[str]()
        source = self._viewpoints.source
        self.possible = source not in ('none', 'imu') and any(self._calibrations.values())

    def of(self, detection: Detection, scene: Scene) -> RangedDetections | None:
        """Return a detection's bearings and distances, None where nothing tells distances."""
        camera = detection.frame.camera
        calibration = self._calibrations[camera]
        if calibration is None:
            self._say(camera, f'the bag has no CameraInfo on {self._topics[camera]}')
            return None
        try:
            view, missing = self._viewpoints.of_detection(detection, scene, calibration)
        except CalibrationError as error:
            self._say(camera, str(error))
            return None
        if view.attitude is None:
            self._say(camera, missing)
            return None
        return ranged_detections(detection, scene, view)

    def _say(self, camera: str, reason: str) -> None:
        if camera not in self._told:
            self._told.add(camera)
            self._tell(f'{camera or "camera"}: no distances: {reason}')


def _calibration(bag: Bag, camera: CameraTopic) -> Calibration | None:
    """Return the first CameraInfo that can be read, None without any."""
    for message in bag.peek(camera.info_topic):
        if message.msgtype != _INFO:
            continue
        try:
            return calibration_of(bag.cdr.read(message.data, message.msgtype))
        except DataError:
            continue
    return None


def _no_imu(_: int) -> Attitude:
    raise CalibrationError(
        'attitude.source is imu, and a bag is read without its Imu: choose level, line or edge'
    )
