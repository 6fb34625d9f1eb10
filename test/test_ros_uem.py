# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with a PixOOD and a UEM bundle: `bundle` is all that changes."""

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
from test_trainer_cli import MINIATURE  # noqa: E402
from test_trainer_uem_bundle import places, train  # noqa: E402

from ood_perception.bundle.completion import complete  # noqa: E402
from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.geometry import to_camera, to_camera_nearest  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.__main__ import main  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros


@pytest.fixture(scope='module', params=['pixood', 'uem'])
def bundle(request, places):
    """Train a bundle of each kind on the same pictures."""
    if request.param == 'uem':
        train(places, 'discriminative', 'node')
        return places / 'node' / 'bundle'
    text = MINIATURE.replace('WEIGHTS', str(places / 'tiny.safetensors'))
    recipe = places / 'pixood.yaml'
    recipe.write_text(text.replace('ROOT', str(places / 'data')))
    options = ['--out', str(places / 'pixood'), '--cache', str(places / 'cache'), '--quiet']
    assert main(['train', str(recipe), *options]) == 0
    return places / 'pixood' / 'bundle'


def offline(bundle, image):
    """Return (surprisal, labels) at the picture's size by the pipeline alone."""
    loaded = complete(load_bundle(bundle))
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        settings = Settings(roi=RoiSettings('none'))
        detection = Pipeline(loaded, engine, settings).run([Frame(image)])[0]
    at = detection.geometry
    return to_camera(detection.surprisal, at), to_camera_nearest(detection.labels, at)


def test_the_node_serves_either_bundle_by_its_parameter_alone(bundle):
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
    flagged = surprisal >= 2.0  # false_alarm_rate 0.01
    assert (array(first['mask']) == flagged).mean() > 0.98
