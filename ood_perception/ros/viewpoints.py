# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From CameraInfo, Imu and parameters to the viewpoint of a frame, or the reason why not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ood_perception.errors import CalibrationError, OodPerceptionError
from ood_perception.image.geometry import Points, Size
from ood_perception.ranging.attitude import (
    Attitude,
    AttitudeHistory,
    Mounting,
    Orientation,
    dip,
    level,
    mounting,
    rotation_from_rpy,
    up_from_horizon,
)
from ood_perception.ranging.camera_model import CameraModel
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Viewpoint, horizon_rows
from ood_perception.ranging.poses import parse_lines, parse_poses, parse_rpy
from ood_perception.ranging.ranges import attitude_from_edge
from ood_perception.ros.camera_infos import CameraModels
from ood_perception.ros.messages import stamp_ns
from ood_perception.types import Detection, Frame

IMU_TOPIC = 'imu'
_HORIZON_COLUMNS = 33
_MARGIN_SIGMAS = 3.0


@dataclass(frozen=True)
class Report:
    """
    What is to be said of one camera's places.

    error: why there are no bearings, '' where there are. warning: why there are no distances.
    values: to show.
    """

    error: str = ''
    warning: str = ''
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Viewpoints:
    """
    Makes viewpoints. One thread asks for them, another may add IMU messages and read reports.

    values: the node's parameters. topic: gives the full name of a topic.
    """

    def __init__(self, values: Mapping[str, Any], topic: Callable[[str], str]) -> None:
        self._topic = topic
        self._history = AttitudeHistory(topic(IMU_TOPIC))
        self._cameras = CameraModels()
        self._reports: dict[str, Report] = {}
        self.apply(values)

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take parameters over; ConfigError for one that cannot be read."""
        self._poses = parse_poses('camera.poses', values['camera.poses'])
        self._lines = parse_lines('attitude.lines', values['attitude.lines'])
        rpy = parse_rpy('attitude.imu_rpy', values['attitude.imu_rpy'])
        self._imu_in_base = rotation_from_rpy(rpy)
        self._values = values

    def add_imu(self, message: Any) -> None:
        """Keep a sensor_msgs/Imu."""
        q = message.orientation
        covariance = tuple(float(value) for value in message.orientation_covariance)
        sample = Orientation(stamp_ns(message.header), (q.x, q.y, q.z, q.w), covariance)
        self._history.add(sample)

    def report(self, camera: str) -> Report | None:
        """Return what the last frame of a camera met, None before the first."""
        return self._reports.get(camera)

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
            model = self._model(frame.camera, info, size)
        except CalibrationError:
            return frame  # said when the outputs are made
        view, _ = self._viewpoint(frame, model, 1.0, None)
        if view.attitude is None:
            return frame
        columns = np.linspace(0.0, size[1], _HORIZON_COLUMNS)
        rows = horizon_rows(view, columns, _MARGIN_SIGMAS * view.attitude.sigma)
        if np.isnan(rows).any():
            return frame
        return dataclasses.replace(frame, horizon=np.column_stack([columns, rows]))

    def viewpoint(self, detection: Detection, info: Any | None, scene: Scene) -> Viewpoint | None:
        """Return how the detection's frame was seen; None, and a report, where nothing tells."""
        frame, geometry = detection.frame, detection.geometry
        size = (geometry.camera_height, geometry.camera_width)
        try:
            if info is None:
                prefix = f'{frame.camera}/' if frame.camera else ''
                raise CalibrationError(
                    f'no CameraInfo has arrived on {self._topic(f"{prefix}camera_info")}: publish '
                    'it, or remap camera_info'
                )
            model = self._model(frame.camera, info, size)
        except CalibrationError as error:
            self._reports[frame.camera] = Report(error=str(error))
            return None
        sigma = (
            self._values['plane.pixel_sigma'] or geometry.camera_width / detection.mask.shape[1]
        )
        view, missing = self._viewpoint(frame, model, sigma, (detection, scene))
        self._reports[frame.camera] = self._report(view, missing)
        return view

    def _model(self, camera: str, info: Any, size: Size) -> CameraModel:
        return self._cameras.model(camera, info, size, self._values['camera.rectified'])

    def _viewpoint(
        self,
        frame: Frame,
        model: CameraModel,
        pixel_sigma: float,
        seen: tuple[Detection, Scene] | None,
    ) -> tuple[Viewpoint, str]:
        """Return the viewpoint and why it has no attitude, '' where it has one."""
        values = self._values
        place = self._pose(frame.camera)
        view = Viewpoint(
            model,
            place,
            base_height=values['plane.base_height'],
            height_sigma=values['plane.height_sigma'],
            pixel_sigma=pixel_sigma,
            largest_ratio=values['plane.largest_ratio'],
        )
        try:
            attitude = self._attitude(frame, view, seen)
        except OodPerceptionError as error:
            return view, str(error)
        missing = '' if attitude else 'attitude.source is none'
        return dataclasses.replace(view, attitude=attitude), missing

    def _attitude(
        self, frame: Frame, view: Viewpoint, seen: tuple[Detection, Scene] | None
    ) -> Attitude | None:
        """Return the attitude by the chosen source; CalibrationError where it does not tell."""
        source, sigma = self._values['attitude.source'], self._values['attitude.sigma']
        if source == 'level':
            return level(sigma)
        if source == 'imu':
            gap = self._values['attitude.longest_gap']
            return self._history.attitude(frame.stamp_ns, gap, self._imu_in_base, sigma)
        if source == 'line':
            return Attitude(self._up_from_line(frame.camera, view), sigma)
        if source == 'edge' and seen is not None:
            found = attitude_from_edge(*seen, view.camera, view.mounting, view.height)
            return dataclasses.replace(found, sigma=max(found.sigma, sigma))
        return None

    def _up_from_line(self, camera: str, view: Viewpoint) -> Points:
        ends = self._lines.get(camera, self._lines.get(''))
        if ends is None:
            raise CalibrationError(f'attitude.lines has no line for camera {camera!r}')
        model = view.camera
        rows = np.array(ends) * model.height
        rays = model.rays(np.column_stack([(0.0, model.width), rows])) @ view.mounting.rotation.T
        if not np.isfinite(rays).all():
            raise CalibrationError('attitude.lines meets the sides beyond what the lens covers')
        return up_from_horizon(rays, dip(view.height)).up

    def _pose(self, camera: str) -> Mounting:
        return self._poses.get(camera) or self._poses.get('') or mounting()

    def _report(self, view: Viewpoint, missing: str) -> Report:
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
        return Report(warning=missing, values=values)
