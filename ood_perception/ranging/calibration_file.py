# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A camera's calibration from a file, for drivers that publish no CameraInfo.

The form is the YAML of ROS's camera_calibration_parsers, which camera_calibration writes:

    image_width: 1280
    image_height: 720
    camera_name: front
    distortion_model: plumb_bob
    camera_matrix: {rows: 3, cols: 3, data: [...]}
    distortion_coefficients: {rows: 1, cols: 5, data: [...]}
    rectification_matrix: {rows: 3, cols: 3, data: [...]}
    projection_matrix: {rows: 3, cols: 4, data: [...]}
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ood_perception.errors import CalibrationError, ConfigError
from ood_perception.files import user_path
from ood_perception.ranging.lens import lens_for
from ood_perception.yaml_files import parse_yaml, read_text

URL_EXAMPLE = "'file:///home/me/front.yaml' or 'front: package://my_robot/config/front.yaml'"
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class CalibrationFile:
    """The values of a file: those of a CameraInfo; r, k row-major 3 x 3, p row-major 3 x 4."""

    width: int
    height: int
    model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]


def parse_urls(parameter: str, entries: Sequence[str]) -> dict[str, str]:
    """Return the URL per camera of '[camera: ]url' entries; ConfigError for one that is none."""
    urls: dict[str, str] = {}
    for entry in filter(None, (entry.strip() for entry in entries)):
        # A colon alone is part of every URL.
        camera, separator, url = entry.partition(': ')
        camera, url = (camera.strip(), url.strip()) if separator else ('', entry)
        scheme = re.match(r'([a-z]+)://', url)
        if camera in urls or not url or (scheme and scheme[1] not in ('file', 'package')):
            raise ConfigError(
                f'{parameter} has {entry!r}: write one file for a camera, like {URL_EXAMPLE}'
            )
        urls[camera] = url
    return urls


def calibration_path(url: str, camera: str = '') -> Path:
    """
    Return the file of a URL: file:///a/b.yaml, package://name/a.yaml, or a path.

    `${NAME}` stands for the camera's name and `${ROS_HOME}` for ROS's folder, as in
    camera_info_manager. Raises ConfigError for a package that is not installed.
    """
    home = os.environ.get('ROS_HOME', '~/.ros')
    url = url.replace('${NAME}', camera).replace('${ROS_HOME}', home)
    if url.startswith('package://'):
        package, _, inside = url.removeprefix('package://').partition('/')
        return _share(package, url) / unquote(inside)
    path = unquote(url.removeprefix('file://')) if url.startswith('file://') else url
    return user_path(path)


def _share(package: str, url: str) -> Path:
    prefixes = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    for prefix in prefixes:
        folder = Path(prefix) / 'share' / package
        if folder.is_dir():
            return folder
    raise ConfigError(f'{url}: package {package} is not installed: source its workspace')


def read_calibration(path: Path) -> CalibrationFile:
    """Read a calibration; ConfigError naming file and field for one that cannot be used."""
    place = f'camera calibration {path}'
    values = parse_yaml(read_text(path, 'camera calibration'), place)
    if not isinstance(values, Mapping) or 'camera_matrix' not in values:
        raise ConfigError(
            f'{place} has no camera_matrix: give the YAML that camera_calibration writes'
        )
    k = _matrix(values, 'camera_matrix', 9, place)
    straight = (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)
    found = CalibrationFile(
        width=_size(values, 'image_width', place),
        height=_size(values, 'image_height', place),
        model=str(values.get('distortion_model', 'plumb_bob')),
        d=_matrix(values, 'distortion_coefficients', None, place, ()),
        k=k,
        r=_matrix(values, 'rectification_matrix', 9, place, _IDENTITY),
        p=_matrix(values, 'projection_matrix', 12, place, straight),
    )
    if not (found.k[0] > 0.0 and found.k[4] > 0.0):
        raise ConfigError(
            f'{place}: camera_matrix has the focal lengths {k[0]:g} and {k[4]:g}: the camera is '
            'not calibrated'
        )
    try:
        lens_for(found.model, found.d)
    except CalibrationError as error:
        raise ConfigError(f'{place}: {error}') from error
    return found


def _size(values: Mapping[str, Any], name: str, place: str) -> int:
    value = values.get(name)
    if type(value) is not int or value <= 0:
        raise ConfigError(f'{place}: {name} is {value!r}, expected the number of pixels')
    return value


def _matrix(
    values: Mapping[str, Any],
    name: str,
    count: int | None,
    place: str,
    default: tuple[float, ...] | None = None,
) -> tuple[float, ...]:
    """Return the `data` of a matrix, `count` numbers; the default where the file lacks it."""
    if name not in values and default is not None:
        return default
    entry = values[name]
    data = entry.get('data') if isinstance(entry, Mapping) else None
    numbers = data if isinstance(data, list) and all(map(_is_number, data)) else None
    if numbers is None or (count is not None and len(numbers) != count):
        expected = f'{count} numbers' if count else 'numbers'
        raise ConfigError(f'{place}: {name} needs data: a list of {expected}, not {data!r:.60}')
    return tuple(map(float, numbers))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
