# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How frames are seen: values per camera in string parameters, and a camera's calibration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ood_perception.errors import CalibrationError, ConfigError, OodPerceptionError
from ood_perception.image.geometry import Points, Size
from ood_perception.ranging.attitude import (
    Attitude,
    Mounting,
    dip,
    level,
    mounting,
    up_from_horizon,
)
from ood_perception.ranging.camera_model import Calibration, CameraModel, camera_model
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Viewpoint
from ood_perception.ranging.ranges import attitude_from_edge
from ood_perception.types import Detection, Frame

_camera_model = lru_cache(maxsize=64)(camera_model)
# Instead of a pose: the tree of frames tells it.
FROM_TF = 'tf'
Pose = Mounting | Literal['tf']
POSE_EXAMPLE = (
    "'front: 0.75,0.1,1.5 0,0.26,0' (x,y,z in metres, then roll,pitch,yaw in radians), or "
    "'front: tf'"
)
LINE_EXAMPLE = "'front: 0.41,0.43' (height at the left and right end, shares of the image)"


def parse_poses(parameter: str, entries: Sequence[str]) -> dict[str, Pose]:
    """
    Return where the cameras sit, by name; the one without a name is under ''.

    The second triple, the camera body's roll, pitch and yaw in the base frame, may be left out.
    FROM_TF stands for a pose that tf tells. Raises ConfigError naming the parameter and the
    entry.
    """
    poses: dict[str, Pose] = {}
    for camera, words in _entries(entries):
        if words == [FROM_TF]:
            poses[camera] = 'tf'
            continue
        triples = [_numbers(word, 3) for word in words]
        if not 1 <= len(triples) <= 2 or None in triples:
            raise ConfigError(f'{parameter} has {words}: write it like {POSE_EXAMPLE}')
        poses[camera] = mounting(*(triple for triple in triples if triple))
    return poses


def parse_lines(parameter: str, entries: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return where the horizon meets the image's sides, shares of the height, by camera."""
    lines = {}
    for camera, words in _entries(entries):
        ends = _numbers(words[0], 2) if len(words) == 1 else None
        if ends is None:
            raise ConfigError(f'{parameter} has {words}: write it like {LINE_EXAMPLE}')
        lines[camera] = (ends[0], ends[1])
    return lines


def parse_rpy(parameter: str, text: str) -> tuple[float, ...]:
    """Return roll, pitch and yaw of 'roll,pitch,yaw' in radians; '' is no rotation."""
    angles = _numbers(text, 3) if text.strip() else (0.0, 0.0, 0.0)
    if angles is None:
        raise ConfigError(f"{parameter} is {text!r}: write roll,pitch,yaw in radians, '0,0,0'")
    return angles


def _entries(entries: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the camera's name and the words of every entry that is not empty."""
    split = []
    for entry in entries:
        camera, colon, rest = entry.rpartition(':')
        if entry.strip():
            split.append((camera.strip() if colon else '', rest.split()))
    return split


def _numbers(word: str, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers between commas, None if they are none."""
    try:
        numbers = tuple(float(part) for part in word.split(','))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


class Viewpoints:
    """
    Camera model, pose and attitude of any frame.

    values: the node's parameters camera.*, attitude.* and plane.*. by_imu: returns the attitude at
    a stamp in nanoseconds, for attitude.source imu. by_tf: returns the pose of a frame's camera,
    for camera.poses tf; None where there is no tf. Both raise CalibrationError for what they
    do not know.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        by_imu: Callable[[int], Attitude],
        by_tf: Callable[[Frame], Mounting] | None = None,
    ) -> None:
        """Raise ConfigError for a parameter that cannot be read."""
        self._poses = parse_poses('camera.poses', values['camera.poses'])
        self._lines = parse_lines('attitude.lines', values['attitude.lines'])
        self._values, self._by_imu, self._by_tf = values, by_imu, by_tf
        self.by_tf_asked = FROM_TF in self._poses.values()
        self.source: str = values['attitude.source']

    def model(self, calibration: Calibration, size: Size) -> CameraModel:
        """Return the camera's model for images of a size; CalibrationError where there is none."""
        return _camera_model(calibration, size, self._values['camera.rectified'])

    def of(
        self,
        frame: Frame,
        model: CameraModel,
        pixel_sigma: float,
        seen: tuple[Detection, Scene] | None,
    ) -> tuple[Viewpoint, str]:
        """
        Return a frame's viewpoint and why it has no attitude, '' where it has one.

        Raises CalibrationError where tf is to tell the camera's pose and does not.
        seen: what was detected on it, for attitude.source edge; None before the detection.
        """
        values = self._values
        view = Viewpoint(
            model,
            self._pose(frame),
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

    def of_detection(
        self, detection: Detection, scene: Scene, calibration: Calibration
    ) -> tuple[Viewpoint, str]:
        """Return the viewpoint of a detection's frame as `of` does; CalibrationError likewise."""
        geometry = detection.geometry
        model = self.model(calibration, (geometry.camera_height, geometry.camera_width))
        sigma = (
            self._values['plane.pixel_sigma'] or geometry.camera_width / detection.mask.shape[1]
        )
        return self.of(detection.frame, model, sigma, (detection, scene))

    def _pose(self, frame: Frame) -> Mounting:
        pose = self._poses.get(frame.camera) or self._poses.get('') or mounting()
        if isinstance(pose, Mounting):
            return pose
        if self._by_tf is None:
            raise CalibrationError('camera.poses: tf is known to the node alone; write the pose')
        return self._by_tf(frame)

    def _attitude(
        self, frame: Frame, view: Viewpoint, seen: tuple[Detection, Scene] | None
    ) -> Attitude | None:
        """Return the attitude by the chosen source; CalibrationError where it does not tell."""
        source, sigma = self.source, self._values['attitude.sigma']
        if source == 'level':
            return level(sigma)
        if source == 'imu':
            return self._by_imu(frame.stamp_ns)
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
