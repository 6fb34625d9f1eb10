# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The latest orientations of an IMU, to be asked for the one nearest to a picture's time."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass

from ood_perception.errors import CalibrationError, ConfigError
from ood_perception.ranging.attitude import Attitude, up_from_imu
from ood_perception.ranging.lens import Vectors

_MOST_SAMPLES = 1000


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


class AttitudeHistory:
    """
    Keeps the last thousand orientations; may be written and read by different threads.

    topic: where they come from, for messages.
    """

    def __init__(self, topic: str = 'imu') -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._samples: deque[Orientation] = deque(maxlen=_MOST_SAMPLES)

    def add(self, sample: Orientation) -> None:
        """Keep a sample."""
        with self._lock:
            self._samples.append(sample)

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
            samples = tuple(self._samples)
        if not samples:
            raise CalibrationError(f'no Imu message has arrived on {self._topic}')
        nearest = min(samples, key=lambda sample: abs(sample.stamp_ns - stamp_ns))
        gap = abs(nearest.stamp_ns - stamp_ns) / 1e9
        if gap > longest_gap:
            raise CalibrationError(
                f'the nearest Imu message on {self._topic} is {gap:.3g} s from the picture, '
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
