# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle with a further view in a real graph: what the pipeline says, switched while it runs."""

import os

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')

from bundles import write_tiny_bundle  # noqa: E402
from image_messages import array  # noqa: E402
from ros_rig import FakeEngine, Rig, isolate, use_fake_engine  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from served_bundle import check_served, photo  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.image.geometry import to_camera_nearest  # noqa: E402
from ood_perception.image.views import ViewSpec  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.calibration import HeldOutSample  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402

pytestmark = pytest.mark.ros
CLASSES = ('Road', 'Pavement', 'Sky')


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    """Held-out pixels were more surprising in the view than in the whole image."""
    rng = np.random.default_rng(0)
    surprisal = rng.exponential(1.0, (6000, 2, 3)) * np.array([0.075, 0.105])[:, None]
    truth = rng.integers(0, 3, 6000).astype(np.uint8)
    sample = HeldOutSample(CLASSES, surprisal, truth, np.ones(6000))
    path = tmp_path_factory.mktemp('views') / 'tiny'
    view = ViewSpec('far', width=0.4)
    return write_tiny_bundle(path, height=84, width=112, views=(view,), held_out=sample)


def expected_masks(bundle, image):
    """Return the pipeline's own masks at the camera's size, with the view and without."""
    loaded = load_bundle(bundle)
    masks = []
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        for views in (True, False):
            settings = Settings(roi=RoiSettings('none'), views=views)
            (found,) = Pipeline(loaded, engine, settings).run([Frame(image)])
            masks.append(to_camera_nearest(found.mask.astype(np.uint8), found.geometry))
    return masks


def test_the_node_publishes_what_the_pipeline_finds_in_all_views(bundle):
    check_served(bundle)


def test_the_views_are_switched_off_and_on_while_frames_come(bundle):
    isolate(os.environ)
    image = photo()
    expected = expected_masks(bundle, image)
    assert 0 < expected[0].sum() < expected[1].sum(), 'the two cannot be told apart'
    options = {'engine': 'openvino', 'precision': 'f32', 'threads': 1, 'roi__mode': 'none'}
    with Rig(bundle=str(bundle), **options) as rig:
        rig.start()
        masks, camera = rig.listen('mask', Image), rig.camera()
        for number, views in enumerate((True, False, True), 1):
            assert rig.set(views=views).successful
            rig.send(camera, image)
            rig.wait(lambda count=number: len(masks) == count, 'a mask')
            np.testing.assert_array_equal(array(masks[-1]), expected[0 if views else 1])


def test_engines_are_built_for_the_images_of_all_cameras_and_again_for_other_classes(
    bundle, monkeypatch
):
    isolate(os.environ)
    use_fake_engine(monkeypatch)
    given = {'roi__mode': 'none', 'lazy_subscription': False}
    with Rig(bundle=str(bundle), cameras=['front', 'left'], **given) as rig:
        rig.start()
        assert rig.engine.options.max_batch == 4
        first = rig.engine
        rig.send(rig.camera('front/image'))
        rig.listen('front/mask', Image)
        rig.send(rig.camera('left/image'))
        assert rig.set(in_distribution=['Road', 'Sky']).successful
        rig.wait(lambda: first.closed, 'the swap')
        assert [engine.options.max_batch for engine in FakeEngine.made] == [4, 4]


def test_a_bundle_without_a_table_of_the_whole_image_keeps_its_views(tmp_path):
    isolate(os.environ)
    rng = np.random.default_rng(0)
    merged = HeldOutSample(
        CLASSES, rng.exponential(1.0, (6000, 3)), rng.integers(0, 3, 6000), np.ones(6000)
    )
    path = write_tiny_bundle(tmp_path / 'tiny', views=(ViewSpec('far'),), held_out=merged)
    with Rig(bundle=str(path), engine='openvino', threads=1) as rig:
        rig.start()
        refused = rig.set(views=False)
        assert not refused.successful
        assert 'views is false: bundle tiny is calibrated for all its views' in refused.reason
        assert rig.node.get_parameter('views').value is True
