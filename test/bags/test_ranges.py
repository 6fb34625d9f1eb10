# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Distances of a bag's frames: its own CameraInfo, the node's parameters, geometry by hand."""

import math

import numpy as np
import pytest

pytest.importorskip('rosbags')

from bag_files import START, Maker, write_bag
from ranged_scenes import SCENE, THING, detection

from ood_perception.bags.cameras import open_cameras
from ood_perception.bags.problems import SKIP, Problems
from ood_perception.bags.ranges import BagRanges
from ood_perception.bags.reading import Bag, Limits

INFO = 'sensor_msgs/msg/CameraInfo'
FOCAL, HEIGHT, PITCH = 500.0, 1.5, 0.2
VALUES = {
    'camera.poses': (f'0,0,{HEIGHT} 0,{PITCH},0',),
    'attitude.source': 'level',
    'plane.largest_ratio': 10.0,
}
RAW = 'sensor_msgs/msg/Image'


def camera_info(maker, focal=FOCAL):
    types = maker.store.types
    region = types['sensor_msgs/msg/RegionOfInterest']
    k = np.array([focal, 0, 319.5, 0, focal, 239.5, 0, 0, 1.0])
    message = types[INFO](
        header=maker.header(START, 'lens'),
        height=480, width=640, distortion_model='plumb_bob', d=np.zeros(5), k=k,
        r=np.eye(3).reshape(-1), p=np.zeros(12), binning_x=0, binning_y=0,
        roi=region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )  # fmt: skip
    return bytes(maker.store.serialize_cdr(message, INFO))


@pytest.fixture
def ranges(tmp_path):
    """Return a maker of BagRanges on a bag of one camera, and what they told."""
    maker, told, bags = Maker(), [], []

    def make(values=VALUES, topic='/front/image_raw', info='/front/camera_info', data=None):
        image = maker.raw(np.zeros((480, 640, 3), np.uint8), 'rgb8', START)
        messages = [(topic, RAW, START, image)]
        if info:
            messages.append((info, INFO, START + 1, data or camera_info(maker)))
        path = write_bag(tmp_path / f'bag{len(bags)}', messages)
        bag = Bag(path, Problems(SKIP), Limits(), tmp_path).__enter__()
        bags.append(bag)
        return BagRanges(bag, open_cameras(bag), values, told.append), told

    yield make
    for bag in bags:
        bag.__exit__(None, None, None)


def thing(labels):
    labels[24:32, 30:36] = THING


def test_a_thing_on_the_ground_is_as_far_as_geometry_says(ranges):
    made, told = ranges()
    assert made.possible
    found = made.of(detection(thing), SCENE)
    below = PITCH + math.atan((320 - 240) / FOCAL)  # its lower border is row 320 of 480
    assert found.obstacles.distance == pytest.approx([HEIGHT / math.tan(below)], rel=0.01)
    assert not told


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'info': ''}, 'no CameraInfo on /front/camera_info'),
        ({'info': '/left/camera_info'}, 'no CameraInfo on /front/camera_info'),
        ({'data': b'damaged'}, 'no CameraInfo on /front/camera_info'),
        ({'values': {**VALUES, 'attitude.source': 'none'}}, 'attitude.source is none'),
        ({'values': {**VALUES, 'attitude.source': 'imu'}}, 'choose level, line or edge'),
    ],
)
def test_why_there_are_none_is_told_once(ranges, change, reason):
    made, told = ranges(**change)
    assert not made.possible
    for _ in range(2):
        assert made.of(detection(thing), SCENE) is None
    (text,) = told
    assert text.startswith('camera: no distances: ')
    assert reason in text


def test_a_camera_without_a_calibration_is_told_too(ranges):
    made, told = ranges(data=camera_info(Maker(), focal=0.0))
    assert made.of(detection(thing), SCENE) is None
    assert len(told) == 1
