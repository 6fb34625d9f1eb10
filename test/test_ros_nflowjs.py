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
from test_trainer_nflowjs_bundle import places, train  # noqa: E402

from ood_perception.bundle.completion import complete  # noqa: E402
from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.geometry import to_camera, to_camera_nearest  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.roi import RoiSettings, class_table, ground_hull  # noqa: E402
from ood_perception.types import Frame  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros
GROUND = 0  # the id of the miniature's ground class


@pytest.fixture(scope='module')
def bundle(places):
    train(places, 'node')
    return places / 'node' / 'bundle'


def offline(bundle, image):
    """Return the whole picture's detection by the pipeline alone."""
    loaded = complete(load_bundle(bundle))
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        settings = Settings(roi=RoiSettings('none'))
        return Pipeline(loaded, engine, settings).run([Frame(image)])[0]


@pytest.mark.parametrize('mode', ['none', 'ground'])
def test_the_node_serves_the_bundle(bundle, mode):
    isolate(os.environ)
    image = np.random.default_rng(0).integers(0, 255, (84, 112, 3), np.uint8)
    expected = offline(bundle, image)
    at = expected.geometry
    inside = np.ones(expected.labels.shape, bool)
    if mode == 'ground':  # outside the hull of the predicted ground nothing is an anomaly
        inside = ground_hull(class_table([GROUND])[expected.labels])
        assert 0 < inside.mean() < 1
    parameters = {'engine': 'openvino', 'precision': 'f32', 'threads': 1, 'roi__mode': mode}
    with Rig(bundle=str(bundle), **parameters) as rig:
        rig.start()
        heard = {name: rig.listen(name, Image) for name in ('surprisal', 'labels', 'mask')}
        stamp = rig.send(rig.camera(), image)
        rig.wait(lambda: all(heard.values()), 'all outputs')
    first = {name: messages[0] for name, messages in heard.items()}
    assert {header(message) for message in first.values()} == {(*stamp, FRAME_ID)}
    np.testing.assert_array_equal(array(first['labels']), to_camera_nearest(expected.labels, at))
    mask = np.where(inside, (expected.surprisal >= 2.0).astype(np.uint8), 255)  # rate 0.01
    np.testing.assert_array_equal(array(first['mask']), to_camera_nearest(mask, at))
    served = array(first['surprisal'])
    scored = np.isfinite(served)
    assert scored.all() == (mode == 'none')
    np.testing.assert_allclose(
        served[scored], to_camera(expected.surprisal, at)[scored], atol=1e-4
    )
