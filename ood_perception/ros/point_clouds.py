# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Ranged detections as sensor_msgs/PointCloud2 with named fields, and as sensor_msgs/LaserScan."""

from __future__ import annotations

import array
import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import LaserScan, PointCloud2, PointField

from ood_perception.image.geometry import Points
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ranging.ground_plane import Places, Viewpoint
from ood_perception.ranging.ranges import RangedDetections, barriers, nearest_by_bearing

_DATATYPES = {
    np.dtype(np.float32): PointField.FLOAT32,
    np.dtype(np.int32): PointField.INT32,
    np.dtype(np.uint8): PointField.UINT8,
}
_PLACE = [
    (name, '<f4')
    for name in (
        *('x', 'y', 'z', 'bearing', 'elevation', 'distance'),
        *('bearing_sigma', 'elevation_sigma', 'distance_sigma'),
    )
]
OBSTACLE_POINT = np.dtype(
    [
        *_PLACE,
        ('bearing_left', '<f4'),
        ('bearing_right', '<f4'),
        ('surprisal', '<f4'),
        ('track', '<i4'),
        ('at_edge', 'u1'),
        ('status', 'u1'),
    ]
)
EDGE_POINT = np.dtype([*_PLACE, ('u', '<f4'), ('v', '<f4'), ('kind', 'u1'), ('status', 'u1')])
CONTACT_POINT = np.dtype([*_PLACE[:3], ('distance_sigma', '<f4'), ('kind', 'u1')])


@dataclass(frozen=True)
class RangeResult:
    """
    One frame's bearings and distances, and how to publish them.

    tracked: the obstacles, in the order of `sightings`. base_frame: name of the frame that points
    are given in; '' = the image's own optical frame. increment: of the scan, radians. range_max:
    of the scan, metres.
    """

    ranged: RangedDetections
    view: Viewpoint
    tracked: Tracked
    base_frame: str = ''
    increment: float = 0.01
    range_max: float = 200.0


def obstacle_cloud(result: RangeResult, header: Any) -> PointCloud2:
    """Return one OBSTACLE_POINT per obstacle, in their order; track is -1 without tracking."""
    found, tracked = result.ranged, result.tracked
    rows = _rows(result, found.obstacles, OBSTACLE_POINT)
    rows['bearing_left'], rows['bearing_right'] = found.left, found.right
    rows['surprisal'] = [obstacle.surprisal for obstacle in tracked.detection.obstacles]
    rows['track'] = tracked.tracks or [-1] * len(rows)
    rows['at_edge'] = found.contact_points.at_edge
    return cloud_message(rows, _header(result, header))


def edge_cloud(result: RangeResult, header: Any) -> PointCloud2:
    """Return one EDGE_POINT per column of the score grid; u, v: pixel centres are whole."""
    line, places = result.ranged.edge_line, result.ranged.edge
    rows = _rows(result, places, EDGE_POINT)
    rows['u'] = (line.line[:, 0] + line.line[:, 1]) / 2 - 0.5
    rows['v'] = line.line[:, 2] - 0.5
    rows['kind'] = line.kind
    return cloud_message(rows, _header(result, header))


def contact_cloud(result: RangeResult, header: Any) -> PointCloud2:
    """Return one CONTACT_POINT per place on the plane that a path must not cross."""
    points, sigma, kind = barriers(result.ranged)
    rows = np.zeros(len(points), CONTACT_POINT)
    _place(rows, result, points)
    rows['distance_sigma'], rows['kind'] = sigma, kind
    return cloud_message(rows, _header(result, header))


def scan_message(result: RangeResult, header: Any) -> LaserScan:
    """
    Return the nearest obstacle or blocked edge per bearing in the base frame.

    inf: free; NaN: not seen, or at a distance that is not known; farther than range_max: inf.
    """
    count = round(2 * math.pi / result.increment)
    ranges = nearest_by_bearing(result.ranged, result.view, count)
    ranges[ranges > result.range_max] = np.inf
    width = 2 * math.pi / count
    message = LaserScan(header=_header(result, header))
    message.angle_min, message.angle_max = -math.pi, math.pi - width
    message.angle_increment = width
    message.range_min, message.range_max = 0.0, result.range_max
    message.ranges = array.array('f', ranges.astype(np.float32))
    return message


def cloud_message(rows: npt.NDArray[Any], header: Any) -> PointCloud2:
    """Return a structured array (N,) as a PointCloud2 of one row; fields keep their names."""
    message = PointCloud2(header=header, height=1, width=len(rows), is_bigendian=False)
    for name, (kind, offset, *_) in (rows.dtype.fields or {}).items():
        field = PointField(name=name, offset=offset, datatype=_DATATYPES[kind], count=1)
        message.fields.append(field)
    message.point_step, message.row_step = rows.dtype.itemsize, rows.nbytes
    message.is_dense = bool(np.isfinite(rows['x']).all())
    message.data.frombytes(rows.tobytes())
    return message


def _rows(result: RangeResult, places: Places, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the rows with all that every kind of point has."""
    rows = np.zeros(len(places.bearing), dtype)
    for name in ('bearing', 'elevation', 'distance'):
        rows[name] = getattr(places, name)
        rows[f'{name}_sigma'] = getattr(places, f'{name}_sigma')
    rows['status'] = places.status
    _place(rows, result, places.points)
    return rows


def _place(rows: npt.NDArray[Any], result: RangeResult, points: Points) -> None:
    """Fill x, y, z with points of the base frame, in the frame that is said."""
    if not result.base_frame:
        mounting = result.view.mounting
        points = (points - mounting.position) @ mounting.rotation
    rows['x'], rows['y'], rows['z'] = points.T


def _header(result: RangeResult, header: Any) -> Any:
    if not result.base_frame:
        return header
    named = copy.deepcopy(header)
    named.frame_id = result.base_frame
    return named
