# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where cameras sit, from ROS's tree of frames; tf2 is imported when somebody asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.time import Time

from ood_perception.errors import CalibrationError, ConfigError
from ood_perception.image.decode import NANOSECONDS
from ood_perception.ranging.attitude import Mounting, rotation_from_quaternion


def check_tf() -> None:
    """Raise ConfigError where tf2 is not installed."""
    _tf2()


def _tf2() -> Any:
    try:
        import tf2_ros
    except ImportError as error:
        raise ConfigError(
            f'camera.poses is tf and tf2 is not installed ({error}): apt install '
            'ros-$ROS_DISTRO-tf2-ros-py, or write the pose as numbers'
        ) from error
    return tf2_ros


class FrameTree:
    """
    Listens to /tf and /tf_static on an rclpy node.

    Its callbacks run on the node's executor; `mounting` may be called by another thread.
    """

    def __init__(self, node: Any) -> None:
        """Raise ConfigError where tf2 is not installed."""
        self._tf2 = _tf2()
        self._buffer = self._tf2.Buffer()
        self._listener = self._tf2.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()

    def mounting(self, base: str, frame: str, stamp_ns: int, longest_gap: float) -> Mounting:
        """
        Return where the frame `frame` (optical, of an image) sits in `base` at a time.

        longest_gap: seconds by which the newest transform may be older than the image. Raises
        CalibrationError, naming both frames and the remedy, where the tree does not tell.
        """
        try:
            found = self._look_up(base, frame, stamp_ns, longest_gap)
        except self._tf2.TransformException as error:
            raise CalibrationError(
                f'tf has no transform from {base} to {frame or "the empty frame_id"} of the image '
                f'({" ".join(str(error).split())}): start robot_state_publisher or a '
                'static_transform_publisher, or write camera.poses as numbers'
            ) from error
        place, turn = found.transform.translation, found.transform.rotation
        return Mounting(
            np.array([place.x, place.y, place.z]),
            rotation_from_quaternion((turn.x, turn.y, turn.z, turn.w)),
        )

    def _look_up(self, base: str, frame: str, stamp_ns: int, longest_gap: float) -> Any:
        """Return the transform at the time, or the newest one that is not too old for it."""
        try:
            return self._buffer.lookup_transform(base, frame, Time(nanoseconds=stamp_ns))
        except self._tf2.ExtrapolationException:
            newest = self._buffer.lookup_transform(base, frame, Time())
            stamp = newest.header.stamp
            gap = stamp_ns - (stamp.sec * NANOSECONDS + stamp.nanosec)
            if not 0 <= gap <= longest_gap * NANOSECONDS:
                raise
            return newest
