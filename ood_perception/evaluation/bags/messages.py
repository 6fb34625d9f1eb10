# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""CDR bytes to frames and label pictures, and detections to CDR bytes, without ROS."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...decode import decode_compressed, decode_image
from ...errors import DataError, DependencyError, ImageError
from ...label_images import decode_label
from ...maps import OutputMaps
from ...tracking import Tracked
from ...types import Frame, Obstacle, UInt8Array
from .definitions import VISION_MSGS
from .topics import COMPRESSED, RAW

NANOSECONDS = 1_000_000_000
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
_LABEL_ENCODINGS = ('mono8', '8UC1')


class Cdr:
    """Reads and writes the few message types that an evaluation needs."""

    def __init__(self) -> None:
        """Raise DependencyError without rosbags."""
        try:
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError as error:
            raise DependencyError(
                "reading a bag needs rosbags: pip install 'ood_perception[bags]'"
            ) from error
        self.store: Any = get_typestore(Stores.ROS2_JAZZY)
        for name, text in VISION_MSGS.items():
            self.store.register(get_types_from_msg(text, name))

    def read(self, data: bytes, msgtype: str) -> Any:
        """Return a message; DataError for bytes that are none of this type."""
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except Exception as error:  # rosbags lets struct's, numpy's and unicode errors through
            reason = f'{type(error).__name__} {error}'.strip()
            raise DataError(
                f'{len(data)} bytes are no {msgtype} ({reason}): the message is damaged'
            ) from error

    def frame(self, message: Any, camera: str) -> Frame:
        """Return a message of an image type as a Frame; ImageError where it does not decode."""
        compressed = message.__msgtype__ == COMPRESSED
        image = decode_compressed(message) if compressed else decode_image(message, _by_ros)
        return Frame(image, camera, stamp_ns(message), message.header.frame_id)

    def image(
        self, pixels: npt.NDArray[Any], encoding: str, stamp: int, frame_id: str
    ) -> memoryview:
        """Return a sensor_msgs/Image of (H, W) or (H, W, C) pixels of the encoding's type."""
        make = self.store.types[RAW]
        height, width = pixels.shape[:2]
        message = make(
            header=self._header(stamp, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels[0].nbytes,
            data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
        )
        written: memoryview = self.store.serialize_cdr(message, RAW)
        return written

    def obstacles(self, tracked: Tracked) -> memoryview:
        """Return a vision_msgs/Detection2DArray as CDR, as the node publishes it."""
        frame, obstacles = tracked.detection.frame, tracked.detection.obstacles
        header = self._header(frame.stamp_ns, frame.frame_id)
        numbers = tracked.tracks or range(len(obstacles))
        detections = [
            self._detection(obstacle, number, header)
            for number, obstacle in zip(numbers, obstacles, strict=True)
        ]
        message = self.store.types[DETECTIONS](header=header, detections=detections)
        written: memoryview = self.store.serialize_cdr(message, DETECTIONS)
        return written

    def output(self, name: str, tracked: Tracked, maps: OutputMaps) -> memoryview:
        """Return one output of a frame ('score', 'surprisal', 'mask' or 'obstacles') as CDR."""
        if name == 'obstacles':
            return self.obstacles(tracked)
        frame = tracked.detection.frame
        stamp, frame_id = frame.stamp_ns, frame.frame_id
        if name == 'mask':
            return self.image(maps.mask(), 'mono8', stamp, frame_id)
        pixels = maps.score() if name == 'score' else maps.surprisal()
        return self.image(pixels, '32FC1', stamp, frame_id)

    def _header(self, stamp: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp, NANOSECONDS)
        time = self.store.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
        return self.store.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)

    def _detection(self, obstacle: Obstacle, number: int, header: Any) -> Any:
        types = self.store.types
        # Boxes are pixel edges, the message wants the place of a pixel centre.
        place = types['vision_msgs/msg/Point2D'](
            x=obstacle.x + obstacle.width / 2 - 0.5, y=obstacle.y + obstacle.height / 2 - 0.5
        )
        box = types['vision_msgs/msg/BoundingBox2D'](
            center=types['vision_msgs/msg/Pose2D'](position=place, theta=0.0),
            size_x=float(obstacle.width),
            size_y=float(obstacle.height),
        )
        hypothesis = types['vision_msgs/msg/ObjectHypothesis'](
            class_id='obstacle', score=1.0 - float(10.0**-obstacle.surprisal)
        )
        result = types['vision_msgs/msg/ObjectHypothesisWithPose'](
            hypothesis=hypothesis, pose=self._no_pose()
        )
        return types['vision_msgs/msg/Detection2D'](
            header=header, results=[result], bbox=box, id=str(number)
        )

    def _no_pose(self) -> Any:
        types = self.store.types
        pose = types['geometry_msgs/msg/Pose'](
            position=types['geometry_msgs/msg/Point'](x=0.0, y=0.0, z=0.0),
            orientation=types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0),
        )
        return types['geometry_msgs/msg/PoseWithCovariance'](
            pose=pose, covariance=np.zeros(36, np.float64)
        )


def stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def label_picture(message: Any) -> UInt8Array:
    """
    Return a label message, Image mono8 or PNG (grey or palette), as uint8 (H, W) ids.

    Raises ImageError for any other encoding, DataError for a PNG in colour or broken.
    """
    if message.__msgtype__ == COMPRESSED:
        if bytes(message.data[:4]) != b'\x89PNG':
            raise ImageError(f'label picture {message.format!r} is no PNG: labels must be exact')
        return decode_label(bytes(message.data), f'label picture {message.format!r}')
    if message.encoding in _LABEL_ENCODINGS:
        return np.ascontiguousarray(decode_image(message)[..., 0])
    raise ImageError(f'label picture has encoding {message.encoding!r}: publish labels as mono8')


def _by_ros(message: Any) -> UInt8Array:
    """Decode what the table lacks as the node does: by cv_bridge, where it is installed."""
    from ood_perception.ros.decode import decode_image as decode_as_the_node

    return decode_as_the_node(message)
