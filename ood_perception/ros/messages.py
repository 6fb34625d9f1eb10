# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays, obstacles and classes to messages."""

from __future__ import annotations

import array
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from visualization_msgs.msg import Marker, MarkerArray

from ood_perception.image.decode import NANOSECONDS
from ood_perception.ros.camera_infos import calibration_of
from ood_perception.types import Obstacle

# Marker rectangles lie this far from the camera, in metres: a picture alone has no distance.
MARKER_DEPTH = 1.0
_LINE_WIDTH = 0.005
_TEXT_HEIGHT = 0.04
# Marker ids are int32 and each obstacle has two.
_MARKER_NUMBERS = 2**30
_CHANNELS = {'32FC1': (np.float32, 1), 'mono8': (np.uint8, 1), 'rgb8': (np.uint8, 3)}


def stamp_ns(header: Any) -> int:
    """Return a std_msgs/Header's stamp in nanoseconds."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)


class ImageBuffer:
    """
    One Image message whose pixels are written in place, and which is published again and again.

    Publishing serialises at once, so the buffer is free when publish returns. Writing into it
    saves an allocation (page faults: about 1 ms for a 1080p float map) and a copy per frame.
    """

    def __init__(self, encoding: str) -> None:
        self.message = Image(encoding=encoding)
        self._dtype, self._channels = _CHANNELS[encoding]

    def pixels(self, height: int, width: int) -> npt.NDArray[Any]:
        """Return the message's own memory: (height, width) or (height, width, 3), writable."""
        message, channels = self.message, self._channels
        step = width * channels * np.dtype(self._dtype).itemsize
        if (message.height, message.width) != (height, width):
            message.data = array.array('B', bytes(height * step))
            message.height, message.width, message.step = height, width, step
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.frombuffer(message.data, dtype=self._dtype).reshape(shape)

    def stamped(self, header: Any) -> Any:
        """Return the message with the given header."""
        self.message.header = header
        return self.message


def image_message(pixels: npt.NDArray[Any], encoding: str, header: Any) -> Any:
    """Return a new Image holding a copy of (H, W) or (H, W, 3) pixels of the encoding's type."""
    buffer = ImageBuffer(encoding)
    buffer.pixels(*pixels.shape[:2])[:] = pixels
    return buffer.stamped(header)


def compressed_message(jpeg: npt.NDArray[np.uint8], header: Any) -> Any:
    """Return JPEG bytes, uint8 (N,), as a CompressedImage of an rgb8 picture."""
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    # frombytes on the empty array is the public way that copies once (see rclpy#763).
    message.data.frombytes(np.ascontiguousarray(jpeg).data.cast('B'))
    return message


def scaled_camera_info(info: Any, height: int, width: int, header: Any) -> Any:
    """
    Return the CameraInfo of a camera's picture resized to (height, width).

    Binning and region of interest are worked into K, P and the size, and are none in the result:
    consumers that heed them and those that do not (RViz) then see the same camera. A CameraInfo
    without a size stays as it is.
    """
    scaled, values = copy.deepcopy(info), calibration_of(info)
    scaled.header = header
    if not all(values.picture_size):
        return scaled
    scaled.width, scaled.height = width, height
    scaled.k = values.resized(values.k, (height, width))
    scaled.p = values.resized(values.p, (height, width))
    scaled.binning_x, scaled.binning_y = min(1, info.binning_x), min(1, info.binning_y)
    scaled.roi = RegionOfInterest()
    return scaled


def obstacle_markers(
    obstacles: Sequence[Obstacle],
    size: tuple[int, int],
    info: Any | None,
    header: Any,
    tracks: Sequence[int] = (),
) -> Any:
    """
    Return a MarkerArray: per obstacle a rectangle and its score, one metre before the camera.

    size: (H, W) of the camera picture. info: its CameraInfo or None; without one a pinhole with
    a focal length of W pixels stands in, and the markers' namespace says so.
    tracks: the obstacles' track numbers, () = not tracked: a marker's id then follows its
    obstacle (2 t and 2 t + 1), and the caption begins with '#t'.
    """
    rays = _pinhole(size, info)
    space = 'obstacles' if _calibrated(info) else 'obstacles_without_camera_info'
    markers = [Marker(header=header, ns=space, action=Marker.DELETEALL)]
    for number, obstacle in zip(_numbers(obstacles, tracks), obstacles, strict=True):
        name = f'#{number} ' if tracks else ''
        place = number % _MARKER_NUMBERS
        markers.append(_rectangle(obstacle, rays, header, space, place))
        markers.append(_caption(obstacle, rays, header, space, place, name))
    return MarkerArray(markers=markers)


def _numbers(obstacles: Sequence[Obstacle], tracks: Sequence[int]) -> Sequence[int]:
    """Return what obstacles are called: their tracks, else their places in the frame."""
    return tracks or range(len(obstacles))


Pinhole = tuple[float, float, float, float]


def _pinhole(size: tuple[int, int], info: Any | None) -> Pinhole:
    """Return fx, fy, cx, cy in pixels of the picture."""
    height, width = size
    if not _calibrated(info):
        return float(width), float(width), (width - 1) / 2, (height - 1) / 2
    values = calibration_of(info)
    k = values.resized(values.k, size)
    return k[0], k[4], k[2], k[5]


def _calibrated(info: Any | None) -> bool:
    return info is not None and info.k[0] > 0 and all(calibration_of(info).picture_size)


def _point(x: float, y: float, rays: Pinhole) -> Any:
    fx, fy, cx, cy = rays
    return Point(x=(x - cx) / fx * MARKER_DEPTH, y=(y - cy) / fy * MARKER_DEPTH, z=MARKER_DEPTH)


def _marker(header: Any, space: str, number: int, kind: int) -> Any:
    marker = Marker(header=header, ns=space, id=number, type=kind, action=Marker.ADD)
    marker.color.r, marker.color.g, marker.color.b, marker.color.a = 1.0, 0.2, 0.1, 1.0
    marker.pose.orientation.w = 1.0
    return marker


def _rectangle(obstacle: Obstacle, rays: Pinhole, header: Any, space: str, number: int) -> Any:
    marker = _marker(header, space, 2 * number, Marker.LINE_STRIP)
    marker.scale.x = _LINE_WIDTH
    # Box edges are pixel edges, rays are pixel centres.
    left, top = obstacle.x - 0.5, obstacle.y - 0.5
    right, bottom = left + obstacle.width, top + obstacle.height
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    marker.points = [_point(x, y, rays) for x, y in corners]
    return marker


def _caption(
    obstacle: Obstacle, rays: Pinhole, header: Any, space: str, number: int, name: str
) -> Any:
    marker = _marker(header, space, 2 * number + 1, Marker.TEXT_VIEW_FACING)
    marker.scale.z = _TEXT_HEIGHT
    top = _point(obstacle.x + obstacle.width / 2 - 0.5, obstacle.y - 0.5, rays)
    top.y -= _TEXT_HEIGHT / 2
    marker.pose.position = top
    marker.text = f'{name}{obstacle_score(obstacle):.4f}'
    return marker


def obstacle_score(obstacle: Obstacle) -> float:
    """Return the obstacle's score, 1 - 10^-surprisal in [0, 1]."""
    return 1.0 - float(10.0**-obstacle.surprisal)


def detections_message(
    vision: Any, obstacles: Sequence[Obstacle], header: Any, tracks: Sequence[int] = ()
) -> Any:
    """
    Return a Detection2DArray; `vision` is the module vision_msgs.msg.

    tracks: the obstacles' track numbers, which become their ids; () = not tracked: the ids are
    the places in this frame.
    """
    message = vision.Detection2DArray(header=header)
    for number, obstacle in zip(_numbers(obstacles, tracks), obstacles, strict=True):
        detection = vision.Detection2D(header=header, id=str(number))
        detection.bbox.center.position.x = obstacle.x + obstacle.width / 2 - 0.5
        detection.bbox.center.position.y = obstacle.y + obstacle.height / 2 - 0.5
        detection.bbox.size_x = float(obstacle.width)
        detection.bbox.size_y = float(obstacle.height)
        result = vision.ObjectHypothesisWithPose()
        result.hypothesis.class_id = 'obstacle'
        result.hypothesis.score = obstacle_score(obstacle)
        detection.results.append(result)
        message.detections.append(detection)
    return message


def label_info_message(
    vision: Any, names: Mapping[int, str], threshold: float, header: Any
) -> Any:
    """Return a LabelInfo naming the values of a label image; `vision` is vision_msgs.msg."""
    message = vision.LabelInfo(header=header, threshold=float(threshold))
    for value, name in names.items():
        message.class_map.append(vision.VisionClass(class_id=value, class_name=name))
    return message
