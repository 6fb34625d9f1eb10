# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays, obstacles and classes to messages."""

from __future__ import annotations

import array
import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import ImageMarker, Marker, MarkerArray

from ood_perception.postprocess.image_score import Inspection
from ood_perception.ranging.calibration_file import CalibrationFile
from ood_perception.ranging.camera_model import calibration_of
from ood_perception.types import Obstacle

# pixels, beyond which a CameraInfo is no calibration
_MOST_PIXELS, _LEAST_FOCAL = 1e9, 1e-3
# Marker rectangles lie this far from the camera, in metres: an image alone has no distance.
MARKER_DEPTH = 1.0
_LINE_WIDTH = 0.005
_TEXT_HEIGHT = 0.04
_OUTLINE_PIXELS = 3.0  # line width of annotations, in pixels of the image
_RED = ColorRGBA(r=1.0, g=0.2, b=0.1, a=1.0)
# Marker ids are int32 and each obstacle has two.
_MARKER_NUMBERS = 2**30
_CHANNELS = {'32FC1': (np.float32, 1), 'mono8': (np.uint8, 1), 'rgb8': (np.uint8, 3)}


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
    """Return JPEG bytes, uint8 (N,), as a CompressedImage of an rgb8 image."""
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    # frombytes on the empty array is the public way that copies once (see rclpy#763).
    message.data.frombytes(np.ascontiguousarray(jpeg).data.cast('B'))
    return message


def camera_info_message(values: CalibrationFile) -> Any:
    """Return a CameraInfo with the values of a calibration file, without a header."""
    info = CameraInfo(width=values.width, height=values.height, distortion_model=values.model)
    info.d, info.k, info.r, info.p = list(values.d), values.k, values.r, values.p
    return info


def scaled_camera_info(info: Any, height: int, width: int, header: Any) -> Any:
    """
    Return the CameraInfo of a camera's image resized to (height, width).

    Binning and region of interest are worked into K, P and the size, and are none in the result:
    consumers that heed them and those that do not (RViz) then see the same camera. A CameraInfo
    without a size stays as it is.
    """
    scaled, values = copy.deepcopy(info), calibration_of(info)
    scaled.header = header
    if not all(values.image_size):
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

    size: (H, W) of the camera image. info: its CameraInfo or None; without one a pinhole with
    a focal length of W pixels stands in, and the markers' namespace says so.
    tracks: the obstacles' track numbers, () = not tracked: a marker's id then follows its
    obstacle (2 t and 2 t + 1), and the caption begins with '#t'.
    """
    rays = _pinhole(size, info)
    space = 'obstacles' if _calibrated(info) else 'obstacles_without_camera_info'
    markers = [Marker(header=header, ns=space, action=Marker.DELETEALL)]
    for number, obstacle in zip(_numbers(obstacles, tracks), obstacles, strict=True):
        place = 2 * (number % _MARKER_NUMBERS)
        outline = _marker(header, space, place, Marker.LINE_STRIP)
        outline.scale.x, outline.points = _LINE_WIDTH, _outline(obstacle, rays)
        caption = _marker(header, space, place + 1, Marker.TEXT_VIEW_FACING)
        caption.scale.z = _TEXT_HEIGHT
        top = _point(obstacle.center[0], obstacle.y - 0.5, rays)
        top.y -= _TEXT_HEIGHT / 2
        caption.pose.position = top
        caption.text = f'{f"#{number} " if tracks else ""}{obstacle.score:.4f}'
        markers += [outline, caption]
    return MarkerArray(markers=markers)


def _numbers(obstacles: Sequence[Obstacle], tracks: Sequence[int]) -> Sequence[int]:
    """Return what obstacles are called: their tracks, else their places in the frame."""
    return tracks or range(len(obstacles))


Pinhole = tuple[float, float, float, float]


def _pinhole(size: tuple[int, int], info: Any | None) -> Pinhole:
    """Return fx, fy, cx, cy in pixels of the image."""
    height, width = size
    if not _calibrated(info):
        return float(width), float(width), (width - 1) / 2, (height - 1) / 2
    values = calibration_of(info)
    k = values.resized(values.k, size)
    return k[0], k[4], k[2], k[5]


def _calibrated(info: Any | None) -> bool:
    """Return whether there is a CameraInfo whose K makes finite rays."""
    if info is None or not all(calibration_of(info).image_size):
        return False
    within = all(abs(value) < _MOST_PIXELS for value in info.k)  # False for NaN
    return within and min(info.k[0], info.k[4]) > _LEAST_FOCAL


def _point(x: float, y: float, rays: Pinhole) -> Any:
    fx, fy, cx, cy = rays
    return Point(x=(x - cx) / fx * MARKER_DEPTH, y=(y - cy) / fy * MARKER_DEPTH, z=MARKER_DEPTH)


def _marker(header: Any, space: str, number: int, kind: int) -> Any:
    marker = Marker(header=header, ns=space, id=number, type=kind, action=Marker.ADD, color=_RED)
    marker.pose.orientation.w = 1.0
    return marker


def _outline(obstacle: Obstacle, rays: Pinhole) -> list[Any]:
    """Return the corners of the box, the first again last."""
    # Box edges are pixel edges, rays are pixel centres.
    corners = _corners(obstacle)
    return [_point(x - 0.5, y - 0.5, rays) for x, y in (*corners, corners[0])]


def _corners(obstacle: Obstacle) -> list[tuple[float, float]]:
    """Return the box's corners in turn, x and y with (0, 0) at the outer corner of the image."""
    left, top = obstacle.x, obstacle.y
    right, bottom = left + obstacle.width, top + obstacle.height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def obstacle_annotations(obstacles: Sequence[Obstacle], header: Any) -> Any:
    """
    Return an ImageMarker: every obstacle's rectangle in one list of lines, in camera pixels.

    Viewers draw it over the image without any calibration. One message holds the whole frame, so
    that it replaces the last one; without obstacles it has no points. (0, 0) is the outer corner
    of the first pixel, as Foxglove and Lichtblick count.
    """
    marker = ImageMarker(header=header, ns='obstacles', type=ImageMarker.LINE_LIST)
    marker.scale, marker.outline_color = _OUTLINE_PIXELS, _RED
    for obstacle in obstacles:
        corners = _corners(obstacle)
        for ends in zip(corners, (*corners[1:], corners[0]), strict=True):
            marker.points += [Point(x=float(x), y=float(y)) for x, y in ends]
    return marker


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
        position = detection.bbox.center.position
        position.x, position.y = obstacle.center
        detection.bbox.size_x = float(obstacle.width)
        detection.bbox.size_y = float(obstacle.height)
        result = vision.ObjectHypothesisWithPose()
        result.hypothesis.class_id = 'obstacle'
        result.hypothesis.score = obstacle.score
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


def image_score_message(judged: Inspection, threshold: float, name: str, header: Any) -> Any:
    """
    Return the judgement of a whole image as a DiagnosticArray with one status.

    Of the stamped messages that every installation has, it alone says "good" or "bad" in a typed
    field: level OK below the threshold (or where it is 0: no threshold), WARN from it on, ERROR
    where nothing was scored, since such an image was not inspected.
    """
    level, text = DiagnosticStatus.OK, f'image score {judged.surprisal:.3f}'
    if math.isnan(judged.surprisal):
        level = DiagnosticStatus.ERROR
        text = 'not inspected: no pixel lies in the region of interest'
    elif threshold > 0.0:
        anomalous = judged.surprisal >= threshold
        level = DiagnosticStatus.WARN if anomalous else DiagnosticStatus.OK
        text = f'{"anomalous" if anomalous else "normal"}: {text}, threshold {threshold:.3f}'
    values = {
        'surprisal': judged.surprisal,
        'threshold': threshold,
        'scored_share': judged.scored,
        'flagged_share': judged.flagged,
    }
    pairs = [KeyValue(key=key, value=repr(value)) for key, value in values.items()]
    status = DiagnosticStatus(
        level=level, name=name, message=text, hardware_id=header.frame_id, values=pairs
    )
    return DiagnosticArray(header=header, status=[status])
