# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with bundles of nearest neighbours, of a baseline and of a fusion."""

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
from test_trainer_cli import LARGER, miniature, train  # noqa: E402

__all__ = ['miniature']
pytestmark = pytest.mark.ros
FUSION = 'fusion.members=[{kind: pixood}, {kind: knn}]'
HEADS = {
    'knn': ('head.kind=knn', 'knn.references=60', 'knn.feature=keys_2'),
    'baseline': ('head.kind=baseline', 'head.score=mahalanobis'),
    'fusion': ('head.kind=fusion', 'knn.references=60', 'knn.feature=keys_2', FUSION),
}


@pytest.fixture(scope='module', params=sorted(HEADS))
def bundle(request, miniature):
    changes = [word for change in (*LARGER, *HEADS[request.param]) for word in ('--set', change)]
    assert train(miniature, request.param, *changes) == 0
    return miniature / request.param / 'bundle'


def test_the_node_serves_the_bundle(bundle):
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
