# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of bearings and distances: camera, attitude, plane, scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.parameters.spec import NO_STRINGS, Spec, positive
from ood_perception.ranging.poses import parse_lines, parse_poses, parse_rpy

SOURCES = ('none', 'level', 'imu', 'line', 'edge')


def _poses(name: str, value: Sequence[str]) -> None:
    parse_poses(name, value)


def _lines(name: str, value: Sequence[str]) -> None:
    parse_lines(name, value)


def _rpy(name: str, value: str) -> None:
    parse_rpy(name, value)


PLACE_PARAMETERS: tuple[Spec, ...] = (
    Spec('camera.rectified', False, 'The pictures are rectified (image_rect): P of CameraInfo '
         'counts, K and the distortion do not', dynamic=True),
    Spec('camera.poses', NO_STRINGS, 'Where cameras sit in the base frame, each "[camera:] x,y,z '
         'roll,pitch,yaw": metres; radians of the body (x along the view)', dynamic=True,
         check=_poses),
    Spec('camera.base_frame', '', 'Frame of the point clouds, as camera.poses has it; empty: the '
         'frame of the picture and no scan'),
    Spec('attitude.source', 'none', 'What tells which way is up: none: no distances; level: the '
         'base is level; imu: the topic imu; line: attitude.lines; edge: the open far edge of the '
         'ground is the horizon', dynamic=True, choices=SOURCES),
    Spec('attitude.sigma', 0.01, 'Standard deviation of roll and pitch, radians; an Imu that '
         'claims less is not believed', dynamic=True, low=0.0, high=1.0),
    Spec('attitude.imu_rpy', '0,0,0', 'roll,pitch,yaw of the IMU in the base frame, radians',
         dynamic=True, check=_rpy),
    Spec('attitude.longest_gap', 0.1, 'Seconds that the nearest Imu message may be away from the '
         'picture', dynamic=True, low=0.001, high=10.0, check=positive),
    Spec('attitude.lines', NO_STRINGS, 'Horizon for source line, each "[camera:] left,right": '
         'where it meets the sides of the picture, shares of its height', dynamic=True,
         check=_lines),
    Spec('plane.base_height', 0.0, 'Height of the origin of the base frame above the plane, '
         'metres', dynamic=True, low=-100.0, high=1000.0),
    Spec('plane.height_sigma', 0.1, 'Standard deviation of the height of the camera, metres',
         dynamic=True, low=0.0, high=100.0),
    Spec('plane.pixel_sigma', 0.0, 'Standard deviation of a border in the picture, camera pixels; '
         '0: one cell of the score grid', dynamic=True, low=0.0, high=1000.0),
    Spec('plane.largest_ratio', 0.3, 'A distance is given while its standard deviation is at most '
         'this share of it', dynamic=True, low=0.0, high=10.0, check=positive),
    Spec('scan.increment', 0.01, 'Angle between two rays of the scan, radians', dynamic=True,
         low=0.001, high=0.5, check=positive),
    Spec('scan.range_max', 200.0, 'Farthest range of the scan, metres', dynamic=True, low=1.0,
         high=100000.0, check=positive),
)  # fmt: skip


def check_places(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that do not fit together."""
    source = values['attitude.source']
    if source == 'line' and not any(values['attitude.lines']):
        raise ConfigError(
            "attitude.source is line and attitude.lines is empty: set both together, '0.4,0.4'"
        )
    named = {
        'camera.poses': set(parse_poses('camera.poses', values['camera.poses'])),
        'attitude.lines': set(parse_lines('attitude.lines', values['attitude.lines'])),
    }
    for name, cameras in named.items():
        strangers = cameras - {'', *values['cameras']}
        if strangers:
            raise ConfigError(
                f'{name} names the cameras {sorted(strangers)}, the node has '
                f'{list(values["cameras"])}: use these names'
            )
