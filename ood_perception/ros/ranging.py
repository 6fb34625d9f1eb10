# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bearings and distances in the node: the imu topic, a look at each frame, what to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu

from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Viewpoint
from ood_perception.ranging.ranges import only, sightings_of, wide_enough
from ood_perception.ros.diagnostics import place_status
from ood_perception.ros.point_clouds import Look
from ood_perception.ros.viewpoints import IMU_TOPIC, Viewpoints
from ood_perception.types import Detection, Frame


class Places:
    """Subscribes to `imu` while attitude.source asks for it; `look` belongs to the worker."""

    def __init__(self, node: Any, values: Mapping[str, Any]) -> None:
        """Raise ConfigError for a parameter that cannot be read."""
        self._node, self._values = node, values
        self._viewpoints = Viewpoints(values, node.resolve_topic_name)
        self._said: dict[str, str] = {}
        self._imu: Any | None = None
        self._listen()

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take dynamic parameters over."""
        self._values = values
        self._viewpoints.apply(values)
        self._listen()

    def close(self) -> None:
        """Remove the subscription."""
        if self._imu is not None:
            self._node.destroy_subscription(self._imu)
            self._imu = None

    def with_horizon(self, frame: Frame, info: Any | None) -> Frame:
        """Return the frame with its horizon, where it is known before the detection."""
        return self._viewpoints.with_horizon(frame, info)

    def look(self, detection: Detection, info: Any | None, scene: Scene) -> Look | None:
        """Return a detection's bearings and distances, None where nothing tells them."""
        view = self._view(detection, info, scene)
        if view is None:
            return None
        return Look(
            sightings_of(detection, scene, view),
            view,
            base_frame=self._values['camera.base_frame'],
            increment=self._values['scan.increment'],
            range_max=self._values['scan.range_max'],
        )

    def without_small(self, detection: Detection, info: Any | None, scene: Scene) -> Detection:
        """Return the detection without obstacles that are surely narrower than minimum_size."""
        minimum = self._values['minimum_size']
        if not minimum or not detection.obstacles:
            return detection
        view = self._view(detection, info, scene)
        if view is None:
            return detection
        return only(detection, wide_enough(detection, scene, view, minimum))

    def statuses(self, node: str, cameras: Sequence[str]) -> list[Any]:
        """Return the diagnostic statuses of the cameras whose places somebody wants."""
        reports = {camera: self._viewpoints.report(camera) for camera in cameras}
        return [
            place_status(node, camera, report.error, report.warning, report.values)
            for camera, report in reports.items()
            if report is not None
        ]

    def _view(self, detection: Detection, info: Any | None, scene: Scene) -> Viewpoint | None:
        view = self._viewpoints.viewpoint(detection, info, scene)
        self._say(detection.frame.camera)
        return view

    def _say(self, camera: str) -> None:
        """Log what is wrong when it begins, not with every frame."""
        report = self._viewpoints.report(camera)
        text = (report.error or report.warning) if report else ''
        if text and text != self._said.get(camera):
            name = f'camera {camera}' if camera else 'camera'
            self._node.log('error' if report and report.error else 'warning', f'{name}: {text}')
        self._said[camera] = text

    def _listen(self) -> None:
        wanted = self._values['attitude.source'] == 'imu'
        if wanted and self._imu is None:
            self._imu = self._node.create_subscription(
                Imu, IMU_TOPIC, self._viewpoints.add_imu, qos_profile_sensor_data
            )
        elif not wanted:
            self.close()
