# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One image through a bundle twice: by the node in a real graph, and by the pipeline alone."""

import os

import numpy as np
from image_messages import array, header
from ros_rig import FRAME_ID, Rig, isolate
from sensor_msgs.msg import Image

from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.image.geometry import to_camera, to_camera_nearest
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.types import Frame

RATE_001 = 2.0  # the surprisal at which a false alarm rate of 0.01 begins to flag


def photo():
    """Return one uint8 (84, 112, 3) image of noise."""
    return np.random.default_rng(0).integers(0, 255, (84, 112, 3), np.uint8)


def offline(bundle, image):
    """Return the whole image's detection by the pipeline alone."""
    loaded = complete(load_bundle(bundle))
    check_graphs(loaded)  # what our heads export, others must be able to load
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        settings = Settings(roi=RoiSettings('none'))
        return Pipeline(loaded, engine, settings).run([Frame(image)])[0]


def served(bundle, image, roi_mode='none', engine='openvino'):
    """Return what the node publishes of the image, name -> array, all with its header."""
    isolate(os.environ)
    parameters = {'engine': engine, 'precision': 'f32', 'threads': 1, 'roi__mode': roi_mode}
    with Rig(bundle=str(bundle), **parameters) as rig:
        rig.start()
        heard = {name: rig.listen(name, Image) for name in ('surprisal', 'labels', 'mask')}
        stamp = rig.send(rig.camera(), image)
        rig.wait(lambda: all(heard.values()), 'all outputs')
    first = {name: messages[0] for name, messages in heard.items()}
    assert {header(message) for message in first.values()} == {(*stamp, FRAME_ID)}
    return {name: array(message) for name, message in first.items()}


def check_served(bundle, inside=None, roi_mode='none', engine='openvino'):
    """
    Assert that the node publishes what the pipeline finds.

    inside: detection -> bool (gh, gw), the region that roi_mode scores; None = everywhere.
    engine: the node's; the pipeline's is OpenVINO.
    """
    image = photo()
    expected = offline(bundle, image)
    at = expected.geometry
    region = inside(expected) if inside else np.ones(expected.labels.shape, bool)
    found = served(bundle, image, roi_mode, engine)
    np.testing.assert_array_equal(found['labels'], to_camera_nearest(expected.labels, at))
    mask = np.where(region, (expected.surprisal >= RATE_001).astype(np.uint8), 255)
    np.testing.assert_array_equal(found['mask'], to_camera_nearest(mask, at))
    scored = np.isfinite(found['surprisal'])
    assert scored.all() == region.all()
    assert scored.any()
    wanted = to_camera(expected.surprisal, at)
    np.testing.assert_allclose(found['surprisal'][scored], wanted[scored], atol=1e-4)
