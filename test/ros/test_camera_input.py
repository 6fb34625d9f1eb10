# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""When a camera is subscribed to, with which QoS, and what diagnostics say of it."""

import pytest

rclpy = pytest.importorskip('rclpy')

from image_messages import header  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_rig import FRAME_ID  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from ood_perception.ros import camera_input  # noqa: E402
from ood_perception.ros.diagnostics import OK, WARN  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.mark.parametrize('reliability', ['reliable', 'best_effort'])
def test_reliability_follows_the_publisher(rig, reliability):
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera(reliability=reliability)
    reader = rig.node.session._inputs['']
    rig.wait(lambda: reader.reliability == reliability, 'the right reliability')
    rig.wait(camera.get_subscription_count, 'a match')
    stamps = {(*rig.send(camera), FRAME_ID)}
    rig.wait(lambda: mask, 'a mask')
    assert {header(m) for m in mask} == stamps


def test_reliability_changes_when_the_publisher_is_replaced(rig):
    rig = rig(lazy_subscription=False)
    reader = rig.node.session._inputs['']
    first = rig.camera(reliability='reliable')
    rig.wait(lambda: reader.reliability == 'reliable', 'reliable')
    rig.destroy(first)
    mask = rig.listen('mask', Image)
    second = rig.peer.create_publisher(Image, 'image', 1)
    rig.destroy(second)
    third = rig.camera(reliability='best_effort')
    rig.wait(lambda: reader.reliability == 'best_effort', 'best effort')
    rig.wait(third.get_subscription_count, 'a match')
    rig.send(third)
    rig.wait(lambda: mask, 'a mask')


def test_a_returning_camera_of_another_reliability_is_no_alarm(rig, monkeypatch):
    """The node follows it; rclpy's own line would say that nothing will be received."""
    rig = rig()
    logged = []
    monkeypatch.setattr(rig.node, 'log', lambda *words: logged.append(words))
    mask = rig.listen('mask', Image)
    first = rig.camera(reliability='reliable')
    rig.destroy(first)
    rig.send(rig.camera(reliability='best_effort'))
    rig.wait(lambda: mask, 'a mask')
    assert not logged


def subscribers(rig, publisher, count):
    rig.wait(lambda: publisher.get_subscription_count() == count, f'{count} subscribers')


def test_the_camera_is_subscribed_while_somebody_listens_and_a_while_longer(rig, monkeypatch):
    monkeypatch.setattr(camera_input, 'HOLD', 1.0)
    rig = rig()
    camera = rig.peer.create_publisher(Image, 'image', 1)
    infos = rig.peer.create_publisher(CameraInfo, 'camera_info', 1)
    level, message, values = rig.status('camera', lambda s: s[2]['publishers'] == '1')
    assert level == OK
    assert 'the camera is not subscribed' in message
    assert values['subscribed'] == 'no'
    subscribers(rig, camera, 0)
    mask = rig.listen('mask', Image)
    subscribers(rig, camera, 1)
    subscribers(rig, infos, 1)
    rig.wait(lambda: rig.node.session._inputs[''].reliability == 'reliable', 'its QoS')
    stamp = rig.send(camera)
    rig.wait(lambda: mask, 'a mask')
    assert header(mask[0]) == (*stamp, FRAME_ID)
    (listener,) = (s for s in rig.peer.subscriptions if s.topic_name == '/road_anomaly/mask')
    rig.destroy(listener)
    subscribers(rig, camera, 0)
    subscribers(rig, infos, 0)
    rig.status('camera', lambda s: s[0] == OK and 'not subscribed' in s[1])
    rig.peer.create_subscription(Image, '/road_anomaly/mask', mask.append, 1)
    subscribers(rig, camera, 1)
    assert rig.enable(False).success
    subscribers(rig, camera, 0)
    assert rig.enable(True).success
    subscribers(rig, camera, 1)
    rig.node.trigger_deactivate()
    subscribers(rig, camera, 0)
    rig.status('camera', lambda s: s[0] == OK and s[1].startswith('inactive'))


def test_a_lazy_subscription_may_be_switched_off_while_the_node_runs(rig, monkeypatch):
    monkeypatch.setattr(camera_input, 'HOLD', 0.5)
    rig = rig()
    camera = rig.peer.create_publisher(Image, 'image', 1)
    assert rig.set(lazy_subscription=False).successful
    subscribers(rig, camera, 1)
    assert rig.set(lazy_subscription=True).successful
    subscribers(rig, camera, 0)


def test_a_subscription_that_the_middleware_refuses_is_logged_and_tried_again(rig, monkeypatch):
    rig = rig()
    logged, create = [], rig.node.create_subscription

    def refuse(kind, topic, *arguments, **options):
        if topic == '/image' and len(logged) < 2:
            raise RuntimeError('no room for a reader')
        return create(kind, topic, *arguments, **options)

    monkeypatch.setattr(rig.node, 'log', lambda *words: logged.append(words))
    monkeypatch.setattr(rig.node, 'create_subscription', refuse)
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')
    assert logged == [('error', '/image cannot be subscribed to: no room for a reader')] * 2


def test_silent_publisher_is_named_in_diagnostics(rig):
    rig = rig(frame_timeout=0.1, lazy_subscription=False)
    rig.status('camera', lambda s: 'nobody publishes' in s[1])
    rig.camera()
    level, text, values = rig.status('camera', lambda s: 'publisher seen' in s[1])
    assert level == WARN
    for words in ('/peer: best_effort', 'requested best_effort', 'our transport', 'large_images'):
        assert words in text
    assert values['publishers'] == '1'


def test_a_publisher_that_is_never_heard_is_named_with_the_remedy(rig):
    rig = rig()
    compressed = rig.peer.create_publisher(CompressedImage, 'image/compressed', 1)
    level, message, _ = rig.status('camera', lambda s: 'compressed' in s[1])
    assert level == WARN
    assert 'nobody publishes /image, but /image/compressed is there' in message
    assert 'transport:=compressed' in message
    rig.destroy(compressed)
    rig.listen('mask', Image)
    context = rclpy.Context()  # a topic has one type in a DDS participant
    context.init(args=[])
    try:
        driver = Node('driver', context=context)
        driver.create_publisher(CompressedImage, 'image', 1)
        level, message, _ = rig.status('camera', lambda s: 'is published as' in s[1])
    finally:
        driver.destroy_node()
        context.shutdown()
    assert level == WARN
    assert 'sensor_msgs/msg/CompressedImage' in message
    assert 'takes sensor_msgs/msg/Image' in message


def test_a_camera_that_stops_is_told_from_one_that_never_came(rig):
    rig = rig(frame_timeout=0.1)
    rig.listen('mask', Image)
    camera = rig.camera()
    rig.send(camera)
    level, message, _ = rig.status('camera', lambda s: 'gone silent' in s[1])
    assert level == WARN
    assert 'large_images' not in message, 'the transport has carried a frame'
    rig.destroy(camera)
    rig.status('camera', lambda s: 'the camera is gone' in s[1])
