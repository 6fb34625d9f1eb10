# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Persistence in the node: what is announced in a real graph, and under which names."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from ros_rig import Rig, isolate, photo, use_fake_engine  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.parameters import table as parameters  # noqa: E402
from ood_perception.ros import messages  # noqa: E402
from ood_perception.types import Obstacle  # noqa: E402

ros = pytest.mark.ros


@pytest.fixture
def rig(bundle):
    """Return a maker of rigs with the bundle's own engine, whole image scored."""
    isolate(os.environ)
    rigs = []

    def make(**values):
        values = {'bundle': bundle, 'roi__mode': 'none', 'threads': 1, **values}
        made = Rig((), **values)
        rigs.append(made)
        return made.start()

    yield make
    for made in rigs:
        made.__exit__()


@pytest.fixture
def fake_rig(rig, monkeypatch):
    use_fake_engine(monkeypatch)
    return rig


def send(rig, camera, heard, count, red):
    """Publish one frame and wait for its outputs, so that none is dropped."""
    rig.send(camera, photo(red=red))
    rig.wait(lambda: all(len(messages) == count for messages in heard), f'output {count}')


def boxes_of(message):
    """Return the ids of a MarkerArray's rectangles."""
    return [m.id for m in message.markers if m.points]


def obstacle_pixels(message):
    return int((np.frombuffer(message.data, np.uint8) == 1).sum())


@ros
def test_the_nodes_own_engine_announces_after_two_of_three(rig):
    """Through a real bundle: red is far from road grey; the frames' stamps are 1 ns apart."""
    rig = rig(persistence__window=3, persistence__required=2)
    markers, masks = rig.listen('obstacle_markers', MarkerArray), rig.listen('mask', Image)
    camera = rig.camera(reliability='reliable')
    for count, red in enumerate([True, True, False, True], start=1):
        rig.send(camera, grey_road(red))
        rig.wait(lambda: len(markers) == len(masks) == count, f'output {count}')  # noqa: B023
    first, second, third, last = (boxes_of(message) for message in markers)
    assert first == third == []
    assert len(second) == 1
    assert second == last, 'one obstacle, one name, through a missed frame'
    pixels = [obstacle_pixels(mask) for mask in masks]
    assert pixels[0] == pixels[1] > 0, 'the mask shows what is not announced, too'


def grey_road(red):
    """Return the tiny bundle's road, with a red block where asked for."""
    image = np.full((96, 128, 3), 110, np.uint8)
    if red:
        image[32:64, 40:80] = (250, 10, 10)
    return image


@ros
def test_off_by_default_every_frame_speaks_for_itself(fake_rig):
    rig = fake_rig()
    markers = rig.listen('obstacle_markers', MarkerArray)
    camera = rig.camera(reliability='reliable')
    send(rig, camera, [markers], 1, red=True)
    assert boxes_of(markers[0]) == [0]
    assert markers[0].markers[2].text == '0.9990'


@ros
def test_the_mask_option_removes_what_is_not_announced_and_changes_live(fake_rig):
    rig = fake_rig(persistence__window=3, persistence__required=3, persistence__mask=True)
    markers, masks = rig.listen('obstacle_markers', MarkerArray), rig.listen('mask', Image)
    camera, heard = rig.camera(reliability='reliable'), (markers, masks)
    send(rig, camera, heard, 1, red=True)
    send(rig, camera, heard, 2, red=True)
    assert [obstacle_pixels(mask) for mask in masks] == [0, 0]
    send(rig, camera, heard, 3, red=True)
    full = obstacle_pixels(masks[-1])
    assert full > 0
    assert boxes_of(markers[-1]) == [2], 'twice the first track number'
    assert markers[-1].markers[2].text == '#1 0.9990'
    refused = rig.set(persistence__window=2)
    assert not refused.successful
    assert '3 of 2' in refused.reason
    assert rig.set(persistence__window=1, persistence__required=1).successful
    send(rig, camera, heard, 4, red=True)
    assert boxes_of(markers[-1]) == [0]
    assert obstacle_pixels(masks[-1]) == full


@ros
def test_cameras_are_tracked_apart_and_activation_begins_anew(fake_rig):
    rig = fake_rig(cameras=['front', 'rear'], persistence__window=4, persistence__required=2)
    front = rig.listen('front/obstacle_markers', MarkerArray)
    rear = rig.listen('rear/obstacle_markers', MarkerArray)
    cameras = [rig.camera(f'{name}/image', reliability='reliable') for name in ('front', 'rear')]
    send(rig, cameras[0], [front], 1, red=True)
    send(rig, cameras[1], [rear], 1, red=True)
    assert boxes_of(front[0]) == boxes_of(rear[0]) == []
    send(rig, cameras[0], [front], 2, red=True)
    assert boxes_of(front[1]) == [2]
    send(rig, cameras[1], [rear], 2, red=False)
    assert boxes_of(rear[1]) == []
    rig.node.trigger_deactivate()
    rig.node.trigger_activate()
    rig.wait(lambda: rig.node.session._worker is not None, 'the worker')
    send(rig, cameras[0], [front], 3, red=True)
    assert boxes_of(front[2]) == [], 'evidence from before does not count'


@ros
def test_frames_that_are_dropped_or_rejected_do_not_break_the_window(fake_rig):
    rig = fake_rig(persistence__window=2, persistence__required=2)
    markers = rig.listen('obstacle_markers', MarkerArray)
    camera = rig.camera(reliability='reliable')
    send(rig, camera, [markers], 1, red=True)
    broken = Image(encoding='rgb8', height=96, width=128, step=3, data=b'abc')
    rig.send(camera, message=broken)
    rig.wait_counter('bad', 1)
    send(rig, camera, [markers], 2, red=True)
    assert boxes_of(markers[1]) == [2]


def test_more_hits_than_frames_are_refused_with_both_numbers():
    values = {spec.name: spec.default for spec in parameters.PARAMETERS}
    with pytest.raises(ConfigError, match=r'persistence 3 of 2 .*required <= window'):
        parameters.check_values(
            {**values, 'persistence.window': 2, 'persistence.required': 3}, known_classes=()
        )


def test_track_numbers_become_ids_and_fit_a_marker():
    def make(**defaults):
        return lambda **given: SimpleNamespace(**{k: v() for k, v in defaults.items()}, **given)

    point = SimpleNamespace(position=SimpleNamespace(x=0.0, y=0.0))
    vision = SimpleNamespace(
        Detection2DArray=make(detections=list),
        Detection2D=make(bbox=lambda: SimpleNamespace(center=point), results=list),
        ObjectHypothesisWithPose=make(hypothesis=SimpleNamespace),
    )
    boxes = [Obstacle(10, 20, 4, 6, 24, 2.0), Obstacle(40, 20, 4, 6, 24, 2.0)]
    array = messages.detections_message(vision, boxes, Header(), (7, 3))
    assert [detection.id for detection in array.detections] == ['7', '3']
    huge = 2**40 + 5
    markers = messages.obstacle_markers(boxes, (96, 128), None, Header(), (huge, 3))
    assert [m.id for m in markers.markers[1:]] == [10, 11, 6, 7]
    assert markers.markers[2].text.startswith(f'#{huge} ')
