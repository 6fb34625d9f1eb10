# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration files as camera_calibration writes them, and the URLs that name them."""

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.ranging.calibration_file import (
    calibration_path,
    parse_urls,
    read_calibration,
)

# The layout of camera_calibration's output, with round numbers.
WRITTEN = """\
image_width: 640
image_height: 480
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [500.5, 0, 319.5, 0, 501.25, 239.5, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.25, 0.0625, 0.001, -0.002, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [480, 0, 320, 0, 0, 490, 240, 0, 0, 0, 1, 0]
"""


def written(tmp_path, text=WRITTEN):
    path = tmp_path / 'front.yaml'
    path.write_text(text)
    return path


def test_every_value_is_read(tmp_path):
    found = read_calibration(written(tmp_path))
    assert (found.width, found.height, found.model) == (640, 480, 'plumb_bob')
    assert found.k == (500.5, 0.0, 319.5, 0.0, 501.25, 239.5, 0.0, 0.0, 1.0)
    assert found.d == (-0.25, 0.0625, 0.001, -0.002, 0.0)
    assert found.r == tuple(np.eye(3).ravel())
    assert found.p[:4] == (480.0, 0.0, 320.0, 0.0)


def test_rectification_and_projection_may_be_left_out(tmp_path):
    found = read_calibration(written(tmp_path, WRITTEN[: WRITTEN.index('rectification')]))
    assert found.r == tuple(np.eye(3).ravel())
    projection = np.reshape(found.p, (3, 4))
    np.testing.assert_array_equal(projection[:, :3], np.reshape(found.k, (3, 3)))
    assert not projection[:, 3].any()


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('image_width: 640', 'image_width: 0', 'image_width is 0'),
        ('image_height: 480\n', '', 'image_height is None'),
        ('500.5', '0', 'not calibrated'),
        ('500.5', '.nan', 'camera_matrix needs data'),
        ('239.5, 0, 0, 1]', '239.5]', 'a list of 9 numbers'),
        ('plumb_bob', 'wide_angle', 'wide_angle'),
        ('camera_matrix', 'matrix', 'no camera_matrix'),
        (WRITTEN, '[camera]\n', 'no camera_matrix'),
        (WRITTEN, 'a: b: c', 'no YAML'),
    ],
)
def test_what_cannot_be_used_is_named_with_the_file(tmp_path, old, new, words):
    path = written(tmp_path, WRITTEN.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        read_calibration(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'front\.yaml'):
        read_calibration(tmp_path / 'front.yaml')


def test_urls_are_those_of_ros(tmp_path, monkeypatch):
    assert calibration_path('file:///a/b%20c.yaml').as_posix() == '/a/b c.yaml'
    assert calibration_path('/a/b.yaml').as_posix() == '/a/b.yaml'
    monkeypatch.setenv('ROS_HOME', '/robot')
    named = calibration_path('file://${ROS_HOME}/camera_info/${NAME}.yaml', 'front')
    assert named.as_posix() == '/robot/camera_info/front.yaml'
    (tmp_path / 'share' / 'my_robot').mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path}')
    found = calibration_path('package://my_robot/config/front.yaml')
    assert found == tmp_path / 'share' / 'my_robot' / 'config' / 'front.yaml'
    with pytest.raises(ConfigError, match='package other is not installed'):
        calibration_path('package://other/front.yaml')


def test_each_camera_has_one_url():
    entries = ['', 'file:///a.yaml', 'left: package://robot/b.yaml']
    assert parse_urls('camera_info_url', entries) == {
        '': 'file:///a.yaml',
        'left': 'package://robot/b.yaml',
    }
    for wrong in (['/a.yaml', '/b.yaml'], ['https://a/b.yaml']):
        with pytest.raises(ConfigError, match='camera_info_url has'):
            parse_urls('camera_info_url', wrong)
