# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which way is up for a camera: from its mounting, an IMU, or a horizon in the image.

Frames are those of REP-103. The *base* frame is the vehicle's (x forward, y left, z up); the
*optical* frame is the camera's (x right, y down, z forward). Angles are in radians; rotations are
about fixed axes in the order roll (x), pitch (y), yaw (z), so that a positive pitch looks down.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ood_perception.errors import CalibrationError, ConfigError
from ood_perception.ranging.lens import Vectors

# Columns: the optical axes in a camera body that looks along its x axis (REP-103).
OPTICAL_IN_BODY: Vectors = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
# The nautical tables' Earth: 7/6 of its radius, which allows for refraction.
_EARTH_RADIUS = 6.371e6 * 7 / 6
_FIT_STEPS = 20
_LEVEL = (0.0, 0.0, 1.0)
_KEPT_NS = 10 * 10**9
_MOST_SAMPLES = 20000  # ten seconds at 2 kHz


@dataclass(frozen=True)
class Mounting:
    """
    Where a camera sits.

    position: float64 (3,) of the camera in the base frame, metres.
    rotation: float64 (3, 3) that turns optical into base coordinates.
    """

    position: Vectors
    rotation: Vectors


@dataclass(frozen=True)
class Attitude:
    """
    Which way is up.

    up: unit vector against gravity, in the base frame. sigma: standard deviation of its tilt
    about any horizontal axis, radians, >= 0.
    """

    up: Vectors
    sigma: float


def mounting(
    position: Sequence[float] = (0.0, 0.0, 0.0), rpy: Sequence[float] = (0.0, 0.0, 0.0)
) -> Mounting:
    """
    Return the mounting of a camera whose *body* (x along the view) is turned by rpy in the base.

    position: metres in the base frame. rpy: roll, pitch, yaw of the camera's body in the base
    frame, radians; (0, 0, 0) looks straight ahead, (0, 0.1, 0) a little down.
    """
    place = np.array(position, dtype=np.float64)
    return Mounting(place, rotation_from_rpy(rpy) @ OPTICAL_IN_BODY)


def rotation_from_rpy(rpy: Sequence[float]) -> Vectors:
    """Return the rotation Rz(yaw) Ry(pitch) Rx(roll), float64 (3, 3); rpy in radians."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(angle), math.cos(angle)) for angle in rpy)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    rotation: Vectors = about_z @ about_y @ about_x
    return rotation


def rotation_from_quaternion(quaternion: Sequence[float]) -> Vectors:
    """Return the rotation (3, 3) of (x, y, z, w); ConfigError where its length is far from 1."""
    length = math.sqrt(sum(value * value for value in quaternion))
    if not abs(length - 1.0) < 0.01:
        raise ConfigError(f'quaternion {tuple(quaternion)} has the length {length:g}, not 1')
    x, y, z, w = (value / length for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def level(sigma: float) -> Attitude:
    """Return the attitude of a base that lies level, give or take sigma radians."""
    return Attitude(np.array(_LEVEL), sigma)


def up_from_imu(quaternion: Sequence[float], imu_in_base: Vectors) -> Vectors:
    """
    Return up in the base frame from a sensor_msgs/Imu orientation.

    quaternion: (x, y, z, w), the IMU's frame in a world whose z is up (REP-145: ENU). Its heading
    plays no part. imu_in_base: rotation (3, 3) that turns IMU into base coordinates.
    """
    up: Vectors = imu_in_base @ rotation_from_quaternion(quaternion).T @ np.array(_LEVEL)
    return up


def dip(height: float) -> float:
    """
    Return how far the sea horizon lies below level, radians, seen from `height` metres.

    acos(R / (R + h)) with the Earth's radius R stretched by 7/6 for refraction, as nautical tables
    have it. 0 for an unknown or negative height.
    """
    return math.acos(_EARTH_RADIUS / (_EARTH_RADIUS + height)) if height > 0.0 else 0.0


def up_from_horizon(rays: Vectors, depression: float = 0.0) -> Attitude:
    """
    Return up, in the rays' frame, from rays towards the horizon; sigma is their scatter about it.

    The scatter is not divided by the root of their number: columns of an image err together.

    rays: unit vectors (N, 3), N >= 2, of one frame whose z is roughly up. depression: how far
    below level the horizon is (dip), radians.

    Gauss-Newton for ray . up = -sin(depression) on the unit sphere with Cauchy weights, so that
    rays that point elsewhere count little. Raises ConfigError for fewer than two directions.
    """
    _, spread, axes = np.linalg.svd(rays, full_matrices=False)
    if len(rays) < 2 or spread[1] < 1e-6:
        raise ConfigError(f'{len(rays)} points of a horizon that lie together: give its two ends')
    up = np.cross(axes[0], axes[1])
    up = up if up[2] >= 0.0 else -up
    scale = 0.0
    for _ in range(_FIT_STEPS):
        tangent = np.linalg.svd(up[None, :])[2][1:]
        wrong = rays @ up + math.sin(depression)
        scale = max(1.4826 * float(np.median(np.abs(wrong))), 1e-12)
        weights = 1 / (1 + (wrong / (2.385 * scale)) ** 2)
        slope = rays @ tangent.T
        information = slope.T @ (slope * weights[:, None])
        step = np.linalg.lstsq(information, -slope.T @ (weights * wrong), rcond=None)[0]
        up = up + step @ tangent
        up /= np.linalg.norm(up)
        if float(np.abs(step).max()) < 1e-14:
            break
    return Attitude(up, scale)


@dataclass(frozen=True)
class Orientation:
    """
    What a sensor_msgs/Imu says of orientation.

    stamp_ns: its time. quaternion: (x, y, z, w), IMU in a world whose z is up. covariance:
    row-major 3 x 3 about x, y, z, rad^2; all 0 = not known, first element -1 = no orientation.
    """

    stamp_ns: int
    quaternion: tuple[float, float, float, float]
    covariance: tuple[float, ...]


def _time(sample: Orientation) -> int:
    return sample.stamp_ns


class AttitudeHistory:
    """
    Keeps the orientations of the last ten seconds; may be written and read by different threads.

    topic: where they come from, for messages. A stamp more than ten seconds before the newest one
    begins anew: a recording started again.
    """

    def __init__(self, topic: str = 'imu') -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._samples: list[Orientation] = []  # by time

    def add(self, sample: Orientation) -> None:
        """Keep a sample, at its place in time."""
        with self._lock:
            kept = self._samples
            if kept and sample.stamp_ns < kept[-1].stamp_ns - _KEPT_NS:
                kept.clear()
            insort(kept, sample, key=_time)
            first = bisect_left(kept, kept[-1].stamp_ns - _KEPT_NS, key=_time)
            del kept[: max(first, len(kept) - _MOST_SAMPLES)]

    def attitude(
        self, stamp_ns: int, longest_gap: float, imu_in_base: Vectors, least_sigma: float
    ) -> Attitude:
        """
        Return the attitude by the sample nearest in time.

        longest_gap: seconds that it may be away. imu_in_base: rotation (3, 3). least_sigma: the
        tilt's standard deviation is at least this, radians, whatever the IMU claims.

        Raises CalibrationError where there is none near enough, and for one without orientation.
        """
        with self._lock:
            behind = bisect_left(self._samples, stamp_ns, key=_time)
            around = self._samples[max(0, behind - 1) : behind + 1]
        if not around:
            raise CalibrationError(f'no Imu message has arrived on {self._topic}')
        nearest = min(around, key=lambda sample: abs(sample.stamp_ns - stamp_ns))
        gap = abs(nearest.stamp_ns - stamp_ns) / 1e9
        if gap > longest_gap:
            raise CalibrationError(
                f'the nearest Imu message on {self._topic} is {gap:.3g} s from the image, '
                f'allowed are {longest_gap:g} s: do IMU and camera use one clock?'
            )
        if nearest.covariance[0] == -1.0:
            raise CalibrationError(
                f'Imu on {self._topic} has no orientation (covariance[0] = -1): run a filter, '
                'such as imu_filter_madgwick, and take its topic'
            )
        try:
            up = up_from_imu(nearest.quaternion, imu_in_base)
        except ConfigError as error:
            raise CalibrationError(f'Imu orientation: {error}') from error
        variance = max(nearest.covariance[0], nearest.covariance[4], 0.0)
        return Attitude(up, max(math.sqrt(variance), least_sigma))
