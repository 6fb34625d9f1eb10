# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with an NFlowJS bundle, and with its ground focus."""

import os

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from ros_rig import FRAME_ID, Rig, isolate  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from test_ros_node import array, header  # noqa: E402
from test_ros_uem import offline  # noqa: E402
from test_trainer_nflowjs_bundle import places, train  # noqa: E402

from ood_perception.roi import class_table, ground_hull  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros
GROUND = 0  # the id of the miniature's ground class


@pytest.fixture(scope='module')
def bundle(places):
    train(places, 'node')
    return places / 'node' / 'bundle'


@pytest.mark.parametrize('mode', ['none', 'ground'])
def test_the_node_serves_the_bundle(bundle, mode):
    isolate(os.environ)
    image = np.random.default_rng(0).integers(0, 255, (84, 112, 3), np.uint8)
    surprisal, labels = offline(bundle, image)
    parameters = {'engine': 'openvino', 'precision': 'f32', 'threads': 1, 'roi__mode': mode}
    with Rig(bundle=str(bundle), **parameters) as rig:
        rig.start()
        heard = {name: rig.listen(name, Image) for name in ('surprisal', 'labels', 'mask')}
        stamp = rig.send(rig.camera(), image)
        rig.wait(lambda: all(heard.values()), 'all outputs')
    first = {name: messages[0] for name, messages in heard.items()}
    assert {header(message) for message in first.values()} == {(*stamp, FRAME_ID)}
    np.testing.assert_array_equal(array(first['labels']), labels)
    mask, served = array(first['mask']), array(first['surprisal'])
    scored = mask != 255
    if mode == 'none':
        assert scored.all()
    else:  # outside the hull of the predicted ground nothing is an anomaly
        hull = ground_hull(class_table([GROUND])[labels])
        assert (scored == hull).mean() > 0.9  # the hull is drawn on the score's own grid
        assert np.isnan(served[~scored]).mean() > 0.9
    both = scored & np.isfinite(served)
    np.testing.assert_allclose(served[both], surprisal[both], atol=1e-4)
    assert (mask[both] == (surprisal >= 2.0)[both]).mean() > 0.98  # rate 0.01
