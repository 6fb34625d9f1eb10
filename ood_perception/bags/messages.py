# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""CDR bytes to frames and label images, and detections to CDR bytes, without ROS."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError, ImageError, required
from ood_perception.image.decode import NANOSECONDS, decode_image
from ood_perception.image.encodings import COMPRESSED, RAW
from ood_perception.image.image_files import decode_label
from ood_perception.postprocess.output_maps import IMAGES, OutputMaps
from ood_perception.postprocess.tracking import Tracked
from ood_perception.requirements import install_command
from ood_perception.types import Obstacle, UInt8Array

# Definitions that rosbags does not bring, without their comments: vision_msgs 4 (Humble to
# Rolling) for results; foxglove_msgs 3 and ffmpeg_image_transport_msgs 3 for packets of video.
VISION_MSGS: dict[str, str] = {
    'vision_msgs/msg/Point2D': 'float64 x\nfloat64 y\n',
    'vision_msgs/msg/Pose2D': 'vision_msgs/Point2D position\nfloat64 theta\n',
    'vision_msgs/msg/BoundingBox2D': (
        'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n'
    ),
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n'
    ),
    'vision_msgs/msg/Detection2D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id\n'
    ),
    'vision_msgs/msg/Detection2DArray': (
        'std_msgs/Header header\nvision_msgs/Detection2D[] detections\n'
    ),
}
VIDEO_MSGS: dict[str, str] = {
    'foxglove_msgs/msg/CompressedVideo': (
        'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n'
    ),
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': (
        'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
        'uint8 flags\nbool is_bigendian\nuint8[] data\n'
    ),
}
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
_STAMP_END = 12  # behind the four bytes that say how CDR is encoded
_LABEL_ENCODINGS = ('mono8', '8UC1')


class Cdr:
    """Reads and writes the few message types that an evaluation needs."""

    def __init__(self) -> None:
        """Raise DependencyError without rosbags."""
        remedy = f'reading a bag needs rosbags: {install_command("bags")}'
        typesys = required('rosbags.typesys', remedy)
        self.store: Any = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
        for name, text in {**VISION_MSGS, **VIDEO_MSGS}.items():
            self.store.register(typesys.get_types_from_msg(text, name))

    def read(self, data: bytes, msgtype: str) -> Any:
        """Return a message; DataError for bytes that are none of this type."""
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except Exception as error:  # rosbags lets struct's, numpy's and unicode errors through
            reason = f'{type(error).__name__} {error}'.strip()
            raise DataError(
                f'{len(data)} bytes are no {msgtype} ({reason}): the message is damaged'
            ) from error

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
        return memoryview(self.store.serialize_cdr(message, RAW))

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
        return memoryview(self.store.serialize_cdr(message, DETECTIONS))

    def output(self, name: str, tracked: Tracked, maps: OutputMaps) -> memoryview:
        """Return one output of a frame, 'obstacles' or one of IMAGES, as CDR."""
        if name == 'obstacles':
            return self.obstacles(tracked)
        frame = tracked.detection.frame
        return self.image(maps.image(name), IMAGES[name].encoding, frame.stamp_ns, frame.frame_id)

    def _header(self, stamp: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp, NANOSECONDS)
        time = self.store.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
        return self.store.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)

    def _detection(self, obstacle: Obstacle, number: int, header: Any) -> Any:
        types = self.store.types
        place = types['vision_msgs/msg/Point2D'](*obstacle.center)
        box = types['vision_msgs/msg/BoundingBox2D'](
            center=types['vision_msgs/msg/Pose2D'](position=place, theta=0.0),
            size_x=float(obstacle.width),
            size_y=float(obstacle.height),
        )
        hypothesis = types['vision_msgs/msg/ObjectHypothesis'](
            class_id='obstacle', score=obstacle.score
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


def leading_stamp(data: bytes) -> int:
    """Return the stamp in nanoseconds with which a CDR message begins, -1 for too few bytes."""
    if len(data) < _STAMP_END:
        return -1
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * NANOSECONDS + int(nanoseconds)


def label_image(message: Any) -> UInt8Array:
    """
    Return a label message, Image mono8 or PNG (grey or palette), as uint8 (H, W) ids.

    Raises ImageError for any other encoding, DataError for a PNG in colour or broken.
    """
    if message.__msgtype__ == COMPRESSED:
        if bytes(message.data[:4]) != b'\x89PNG':
            raise ImageError(f'label image {message.format!r} is no PNG: labels must be exact')
        return decode_label(bytes(message.data), f'label image {message.format!r}')
    if message.encoding in _LABEL_ENCODINGS:
        return np.ascontiguousarray(decode_image(message)[..., 0])
    raise ImageError(f'label image has encoding {message.encoding!r}: publish labels as mono8')
