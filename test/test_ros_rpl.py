# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with an RPL bundle."""

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
from test_trainer_rpl_bundle import places, train  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros


def test_the_node_serves_the_bundle(places):
    train(places, 'node')
    bundle = places / 'node' / 'bundle'
    isolate(os.environ)
    image = np.random.default_rng(0).integers(0, 255, (84, 112, 3), np.uint8)
    surprisal, labels = offline(bundle, image)
    parameters = {'engine': 'openvino', 'precision': 'f32', 'threads': 1, 'roi__mode': 'none'}
    with Rig(bundle=str(bundle), **parameters) as rig:
        rig.start()
        heard = {name: rig.listen(name, Image) for name in ('surprisal', 'labels', 'mask')}
        stamp = rig.send(rig.camera(), image)
        rig.wait(lambda: all(heard.values()), 'all outputs')
    first = {name: messages[0] for name, messages in heard.items()}
    assert {header(message) for message in first.values()} == {(*stamp, FRAME_ID)}
    np.testing.assert_allclose(array(first['surprisal']), surprisal, atol=1e-4)
    np.testing.assert_array_equal(array(first['labels']), labels)
    assert (array(first['mask']) == (surprisal >= 2.0)).mean() > 0.98  # rate 0.01
