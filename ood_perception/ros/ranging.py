# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bearings and distances in the node: from CameraInfo, Imu and parameters to a frame's ranges."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Imu

from ood_perception.errors import CalibrationError
from ood_perception.image.decode import stamp_ns
from ood_perception.postprocess.mask import only
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ranging.attitude import (
    Attitude,
    AttitudeHistory,
    Mounting,
    Orientation,
    rotation_from_rpy,
)
from ood_perception.ranging.camera_model import calibration_of
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Viewpoint, horizon_rows
from ood_perception.ranging.ranges import ranged_detections, wide_enough
from ood_perception.ranging.viewpoints import FROM_TF, Viewpoints, parse_poses, parse_rpy
from ood_perception.ros.diagnostics import RangeReport, range_status
from ood_perception.ros.point_clouds import RangeResult
from ood_perception.ros.tf import FrameTree, check_tf
from ood_perception.types import Detection, Frame

IMU_TOPIC = 'imu'
_HORIZON_COLUMNS = 33
_MARGIN_SIGMAS = 3.0


class Ranging:
    """
    Tells where a frame's obstacles are, as far as CameraInfo, Imu and parameters tell.

    It subscribes to `imu` while attitude.source asks for it and a camera is subscribed to, and to
    tf while camera.poses does. The worker's thread asks; the
    executor's adds Imu messages, replaces parameters and reads statuses.
    """

    def __init__(self, node: Any, values: Mapping[str, Any]) -> None:
        """Raise ConfigError for a parameter that cannot be read."""
        self._node = node
        self._history = AttitudeHistory(node.resolve_topic_name(IMU_TOPIC))
        self._reports: dict[str, RangeReport] = {}
        self._logged: dict[str, str] = {}
        self._imu: Any | None = None
        self._tree: FrameTree | None = None
        self._lock = threading.Lock()
        self._listening = False
        self.apply(values)

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take parameters over; ConfigError for one that cannot be read."""
        rpy = parse_rpy('attitude.imu_rpy', values['attitude.imu_rpy'])
        self._imu_in_base = rotation_from_rpy(rpy)
        self._viewpoints = Viewpoints(values, self._by_imu, self._by_tf)
        self._values, self._by_tf_asked = values, self._viewpoints.by_tf_asked
        self.listen(self._listening)

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise ConfigError for a pose by tf where tf2 is not installed."""
        if FROM_TF in parse_poses('camera.poses', values['camera.poses']).values():
            check_tf()

    def listen(self, listening: bool) -> None:
        """Subscribe to what parameters ask for; to an Imu while a camera is subscribed to."""
        with self._lock:
            self._listening = listening
            wanted = listening and self._values['attitude.source'] == 'imu'
            if wanted and self._imu is None:
                self._imu = self._node.create_subscription(
                    Imu, IMU_TOPIC, self._add_imu, qos_profile_sensor_data
                )
            elif not wanted and self._imu is not None:
                self._node.destroy_subscription(self._imu)
                self._imu = None
            # tf stays, whoever listens: a static transform comes once, at the start
            if self._by_tf_asked and self._tree is None:
                self._tree = FrameTree(self._node)
            elif not self._by_tf_asked and self._tree is not None:
                self._tree.close()
                self._tree = None

    def close(self) -> None:
        """Remove the subscriptions; a late `listen` brings none back."""
        self._by_tf_asked = False
        self.listen(False)

    def with_horizon(self, frame: Frame, info: Any | None) -> Frame:
        """
        Return the frame with its horizon, as it is where none is known before the detection.

        The horizon lies three standard deviations of the attitude too high: it is there to cut
        off what cannot be ground, not what might be.
        """
        size = (frame.image.shape[0], frame.image.shape[1])
        if info is None or self._values['attitude.source'] in ('none', 'edge'):
            return frame
        try:
            model = self._viewpoints.model(calibration_of(info), size)
            view, _ = self._viewpoints.of(frame, model, 1.0, None)
        except CalibrationError:
            return frame  # said when the outputs are made
        if view.attitude is None:
            return frame
        columns = np.linspace(0.0, size[1], _HORIZON_COLUMNS)
        rows = horizon_rows(view, columns, _MARGIN_SIGMAS * view.attitude.sigma)
        if np.isnan(rows).any():
            return frame
        return dataclasses.replace(frame, horizon=np.column_stack([columns, rows]))

    def ranges(self, tracked: Tracked, info: Any | None, scene: Scene) -> RangeResult | None:
        """Return a detection's bearings and distances, None where nothing tells them."""
        view = self._reported_view(tracked.detection, info, scene)
        if view is None:
            return None
        return RangeResult(
            ranged_detections(tracked.detection, scene, view),
            view,
            tracked,
            base_frame=self._values['camera.base_frame'],
            increment=self._values['scan.increment'],
            range_max=self._values['scan.range_max'],
        )

    def without_small(self, detection: Detection, info: Any | None, scene: Scene) -> Detection:
        """Return the detection without obstacles that are surely narrower than minimum_size."""
        minimum = self._values['minimum_size']
        if not minimum or not detection.obstacles:
            return detection
        view = self._reported_view(detection, info, scene)
        if view is None:
            return detection
        return only(detection, wide_enough(detection, scene, view, minimum))

    def statuses(self, node: str, cameras: Sequence[str]) -> list[Any]:
        """Return the diagnostic statuses of those cameras that have had a frame."""
        reports = self._reports
        return [range_status(node, name, reports[name]) for name in cameras if name in reports]

    def _add_imu(self, message: Any) -> None:
        q = message.orientation
        covariance = tuple(float(value) for value in message.orientation_covariance)
        sample = Orientation(stamp_ns(message), (q.x, q.y, q.z, q.w), covariance)
        self._history.add(sample)

    def _reported_view(
        self, detection: Detection, info: Any | None, scene: Scene
    ) -> Viewpoint | None:
        """Return the view; report, and log when it begins, why there is none or no attitude."""
        camera = detection.frame.camera
        try:
            view, report = self._view(detection, info, scene)
        except CalibrationError as error:
            view, report = None, RangeReport(error=str(error))
        self._reports[camera] = report
        text = report.error or report.warning
        if text and text != self._logged.get(camera):
            name = f'camera {camera}' if camera else 'camera'
            self._node.log('error' if report.error else 'warning', f'{name}: {text}')
        self._logged[camera] = text
        return view

    def _view(
        self, detection: Detection, info: Any | None, scene: Scene
    ) -> tuple[Viewpoint, RangeReport]:
        """Return how the detection's frame was seen; CalibrationError where nothing tells."""
        if info is None:
            camera = detection.frame.camera
            prefix = f'{camera}/' if camera else ''
            topic = self._node.resolve_topic_name(f'{prefix}camera_info')
            raise CalibrationError(
                f'no CameraInfo has arrived on {topic}: publish it, remap camera_info, or set '
                'camera_info_url to a calibration file'
            )
        view, missing = self._viewpoints.of_detection(detection, scene, calibration_of(info))
        return view, self._report(view, missing)

    def _by_imu(self, stamp_ns: int) -> Attitude:
        gap, sigma = self._values['attitude.longest_gap'], self._values['attitude.sigma']
        return self._history.attitude(stamp_ns, gap, self._imu_in_base, sigma)

    def _by_tf(self, frame: Frame) -> Mounting:
        """Return where the frame's camera sits by tf; CalibrationError where tf does not tell."""
        tree, base = self._tree, self._values['camera.base_frame']
        if tree is None:  # the parameter changes under our hands
            raise CalibrationError('camera.poses changes')
        gap = self._values['attitude.longest_gap']
        return tree.mounting(base, frame.frame_id, frame.stamp_ns, gap)

    def _report(self, view: Viewpoint, missing: str) -> RangeReport:
        forward, left, up = view.level_from_optical[:, 2]  # the camera's axis
        values = {
            'attitude_source': self._values['attitude.source'],
            'camera_height_m': f'{view.height:.3f}',
            'camera_bearing_deg': f'{math.degrees(math.atan2(left, forward)):.2f}',
            'camera_elevation_deg': f'{math.degrees(math.asin(np.clip(up, -1, 1))):.2f}',
        }
        if view.attitude is not None:
            values['attitude_sigma_deg'] = f'{math.degrees(view.attitude.sigma):.3f}'
            if not view.height > 0.0:
                missing = (
                    f'the camera is {view.height:.3g} m above the plane: set its z in '
                    'camera.poses, or plane.base_height'
                )
        if missing:
            missing = f'bearings without distances: {missing}'
        return RangeReport(warning=missing, values=values)
