# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A camera's calibration from a file, and its pose from tf, in a real graph."""

import importlib.util
import sys

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from image_messages import header  # noqa: E402
from ros_rig import FRAME_ID, stamped  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2  # noqa: E402

from ood_perception.ros.diagnostics import ERROR  # noqa: E402

pytestmark = pytest.mark.ros
needs_tf2 = pytest.mark.skipif(
    importlib.util.find_spec('tf2_ros') is None,
    reason='tf2_ros is not installed (apt: ros-$ROS_DISTRO-tf2-ros-py); it has no wheel',
)
# The rig's images are 128 x 96.
CALIBRATION = """\
image_width: 128
image_height: 96
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.0, 0.0, 0.0, 0.0, 0.0]}
camera_matrix: {rows: 3, cols: 3, data: [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]}
"""


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / 'front.yaml'
    path.write_text(CALIBRATION)
    return f'file://{path}'


def bearings(message):
    """Return the bearing of every obstacle, radians."""
    offsets = {field.name: field.offset for field in message.fields}
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(-1, message.point_step)
    start = offsets['bearing']
    return rows[:, start : start + 4].copy().view('<f4').ravel()


def test_a_calibration_file_takes_the_place_of_camera_info(rig, calibration):
    rig = rig(camera_info_url=calibration, output_scale=0.5)
    points = rig.listen('obstacle_points', PointCloud2)
    infos = rig.listen('camera_info', CameraInfo)
    camera = rig.camera()
    assert rig.peer.count_subscribers('/camera_info') == 0
    stamp = rig.send(camera)
    rig.wait(lambda: points and infos, 'points and the scaled CameraInfo')
    assert header(infos[0]) == (*stamp, FRAME_ID)
    assert (infos[0].width, infos[0].height, infos[0].k[0]) == (64, 48, 50.0)
    # the red block covers columns 42 to 63 of 128: left of the middle by 11.5 pixels of 100
    assert bearings(points[0]) == pytest.approx([np.arctan(0.115)], abs=0.02)


def test_a_calibration_that_cannot_be_read_is_one_clear_line(rig, tmp_path):
    rig = rig(start=False, camera_info_url=[f'file://{tmp_path}/missing.yaml'])
    assert not rig.node.autostart()
    assert 'missing.yaml' in rig.node.start_error
    assert 'Traceback' not in rig.node.start_error
    assert all(engine.closed for engine in type(rig.engine).made)


def test_a_pose_by_tf_needs_a_base_frame_and_tf2(rig, monkeypatch):
    made = rig(camera__base_frame='base_link')
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    refused = made.set(camera__poses='tf')
    assert not refused.successful
    assert 'apt install ros-$ROS_DISTRO-tf2-ros-py' in refused.reason
    assert made.node.get_parameter('camera.poses').value == ['']


def test_a_start_with_tf_and_without_tf2_is_one_clear_line(rig, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    rig = rig(start=False, camera__poses=['tf'], camera__base_frame='base_link')
    assert not rig.node.autostart()
    assert 'tf2 is not installed' in rig.node.start_error
    assert all(engine.closed for engine in type(rig.engine).made)


def test_tf_without_a_base_frame_is_refused(rig):
    refused = rig().set(camera__poses=['tf'])
    assert not refused.successful
    assert 'camera.base_frame is empty' in refused.reason


def test_the_imu_is_heard_while_a_camera_is(rig):
    rig = rig(attitude__source='imu')
    imu = rig.peer.create_publisher(Imu, 'imu', 1)
    rig.status('camera', lambda s: s[2]['subscribed'] == 'no')
    assert imu.get_subscription_count() == 0
    rig.listen('mask', Image)
    rig.wait(lambda: imu.get_subscription_count() == 1, 'the Imu')
    assert rig.on_executor(rig.set, attitude__source='level').successful
    rig.wait(lambda: imu.get_subscription_count() == 0, 'no Imu')


def send_transform(rig, broadcaster, x, yaw_half, stamp=(0, 0)):
    """Publish base_link -> the camera's optical frame: `yaw_half` is half the turn to the left."""
    from geometry_msgs.msg import TransformStamped

    message = stamped(TransformStamped(), stamp)
    message.header.frame_id, message.child_frame_id = 'base_link', FRAME_ID
    message.transform.translation.x, message.transform.translation.z = x, 1.5
    # yaw after the turn from optical to body axes, (-1/2, 1/2, -1/2, 1/2) in x, y, z, w
    sine, cosine = np.sin(yaw_half), np.cos(yaw_half)
    ax, ay, az, aw = -0.5, 0.5, -0.5, 0.5
    turn = message.transform.rotation
    turn.x, turn.y = cosine * ax - sine * ay, cosine * ay + sine * ax
    turn.z, turn.w = cosine * az + sine * aw, cosine * aw - sine * az
    broadcaster.sendTransform(message)


@needs_tf2
def test_the_pose_of_a_camera_comes_from_tf(rig, calibration):
    import tf2_ros

    rig = rig(
        camera_info_url=[calibration],
        camera__poses='tf',
        camera__base_frame='base_link',
        attitude__source='level',
    )
    points = rig.listen('obstacle_points', PointCloud2)
    camera = rig.camera()
    rig.send(camera)
    _, message, _ = rig.status('places', lambda s: s[0] == ERROR)
    for words in ('base_link', FRAME_ID, 'static_transform_publisher'):
        assert words in message
    assert not points, 'no bearing without a pose'
    send_transform(rig, tf2_ros.StaticTransformBroadcaster(rig.peer), 0.5, 0.15)

    def heard():
        rig.send(camera)
        return points

    rig.wait(heard, 'points')
    assert points[-1].header.frame_id == 'base_link'
    assert bearings(points[-1]) == pytest.approx([0.3 + np.arctan(0.115)], abs=0.02)
    _, _, values = rig.status('places', lambda s: s[0] != ERROR)
    assert float(values['camera_height_m']) == 1.5


@needs_tf2
def test_a_transform_that_moves_is_taken_at_the_images_time_or_not_at_all(rig, calibration):
    import tf2_ros

    rig = rig(
        camera_info_url=[calibration],
        camera__poses=['tf'],
        camera__base_frame='base_link',
        attitude__longest_gap=0.5,
    )
    points = rig.listen('obstacle_points', PointCloud2)
    camera, broadcaster = rig.camera(), tf2_ros.TransformBroadcaster(rig.peer)

    def bearing_at(nanoseconds):
        """Publish poses of a camera that turns, 0 at 100.0 s, 0.4 rad at 100.2 s, and an image."""
        seen = len(points)
        image = rig.send  # stamps are its own: 100 s and a count of nanoseconds
        send_transform(rig, broadcaster, 0.0, 0.0, (100, 0))
        send_transform(rig, broadcaster, 0.0, 0.2, (100, 200_000_000))
        rig._count = nanoseconds - 1
        image(camera)
        rig.wait(lambda: len(points) > seen or 'ERROR' in statuses(), 'an answer')
        return bearings(points[-1])[0] if len(points) > seen else None

    def statuses():
        status = rig._statuses.get('places')
        return 'ERROR' if status is not None and status.level == ERROR else ''

    rig.wait(lambda: bearing_at(100_000_000) is not None, 'the transforms')
    middle = bearing_at(100_000_000)
    assert middle == pytest.approx(0.2 + np.arctan(0.115), abs=0.02), 'interpolated'
    assert bearing_at(300_000_000) == pytest.approx(0.4 + np.arctan(0.115), abs=0.02), 'the newest'
    rig._count = 899_999_999
    seen = len(points)
    rig.send(camera)
    _, message, _ = rig.status('places', lambda s: s[0] == ERROR)
    assert 'base_link' in message
    assert len(points) == seen, 'too old a transform tells nothing'
