# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The outputs that need vision_msgs, over DDS with the real messages, which have no wheel."""

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
vision = pytest.importorskip(
    'vision_msgs.msg', reason='vision_msgs is not installed (apt: ros-$ROS_DISTRO-vision-msgs)'
)

from image_messages import array, header  # noqa: E402
from ros_rig import FRAME_ID, photo  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from ood_perception.ros.diagnostics import OK  # noqa: E402
from ood_perception.ros.qos import latched_profile  # noqa: E402

pytestmark = pytest.mark.ros


def latched(rig, name):
    """Return the list that fills with LabelInfos of a subscriber that comes late."""
    heard = []
    topic = f'/road_anomaly/{name}'
    rig.peer.create_subscription(vision.LabelInfo, topic, heard.append, latched_profile())
    rig.wait(lambda: heard, f'{name}, published before')
    return heard


def names(info):
    return {one.class_id: one.class_name for one in info.class_map}


def test_obstacles_are_the_boxes_of_the_masks_components(rig):
    rig = rig()
    heard, mask = rig.listen('obstacles', vision.Detection2DArray), rig.listen('mask', Image)
    pixels = photo(red=False)
    pixels[20:40, 10:40] = pixels[60:90, 80:120] = (250, 10, 10)
    stamp = rig.send(rig.camera(), pixels)
    rig.wait(lambda: heard and mask, 'obstacles and a mask')
    assert header(heard[0]) == (*stamp, FRAME_ID)
    flagged = array(mask[0]) == 1
    assert len(heard[0].detections) == 2
    assert sorted(d.id for d in heard[0].detections) == ['0', '1']
    covered = np.zeros_like(flagged)
    for detection in heard[0].detections:
        assert header(detection) == (*stamp, FRAME_ID)
        (result,) = detection.results
        assert result.hypothesis.class_id == 'obstacle'
        assert result.hypothesis.score == pytest.approx(1 - 1e-3)
        box = detection.bbox
        left = box.center.position.x - (box.size_x - 1) / 2
        top = box.center.position.y - (box.size_y - 1) / 2
        rows = slice(round(top), round(top + box.size_y))
        columns = slice(round(left), round(left + box.size_x))
        assert flagged[rows, columns].any()
        covered[rows, columns] = True
    assert not (flagged & ~covered).any(), 'the boxes hold every flagged pixel'
    rig.send(rig.camera(), photo(red=False))
    rig.wait(lambda: len(heard) == 2, 'the next frame')
    assert not heard[1].detections, 'a frame without obstacles is published, too'


def test_ids_are_the_tracks_numbers_where_obstacles_are_tracked(rig):
    rig = rig(persistence__window=2, persistence__required=2)
    heard = rig.listen('obstacles', vision.Detection2DArray)
    camera = rig.camera()
    for count in (1, 2, 3):
        rig.send(camera)
        rig.wait(lambda n=count: len(heard) == n, 'obstacles')
    ids = [[detection.id for detection in message.detections] for message in heard]
    assert ids[0] == [], 'announced in the second frame'
    assert len(ids[1]) == 1
    assert ids[1] == ids[2]


def test_what_the_values_of_mask_and_labels_mean_is_kept_for_late_subscribers(rig):
    rig = rig(false_alarm_rate=0.02)
    mask, labels = latched(rig, 'mask_info'), latched(rig, 'label_info')
    unknown = latched(rig, 'open_set_label_info')
    assert names(mask[0]) == {0: 'normal', 1: 'obstacle', 255: 'not scored'}
    assert mask[0].threshold == pytest.approx(0.98)
    classes = rig.node.session.model.classes
    assert names(labels[0]) == dict(enumerate(classes))
    assert labels[0].threshold == 0.0
    assert names(unknown[0]).items() >= names(labels[0]).items()
    assert {254, 255} <= set(names(unknown[0]))
    assert rig.set(false_alarm_rate=0.005).successful
    rig.wait(lambda: mask[-1].threshold == pytest.approx(0.995), 'the new threshold')
    rig.wait(lambda: unknown[-1].threshold == pytest.approx(0.995), 'the new threshold')


def test_named_cameras_have_their_own(rig):
    rig = rig(cameras=['left', 'right'])
    heard = {
        name: rig.listen(f'{name}/obstacles', vision.Detection2DArray)
        for name in ('left', 'right')
    }
    latched(rig, 'left/mask_info')
    rig.send(rig.camera('right/image'))
    rig.wait(lambda: heard['right'], 'obstacles')
    assert len(heard['right'][0].detections) == 1
    assert not heard['left']


def test_diagnostics_miss_nothing(rig):
    level, _, values = rig().status('outputs', lambda s: True)
    assert (level, values['missing']) == (OK, '')
