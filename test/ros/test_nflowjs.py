# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with an NFlowJS bundle, and with its ground focus."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from nflowjs_recipes import train  # noqa: E402
from served_bundle import check_served  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.postprocess.roi import class_table, ground_hull  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros
GROUND = 0  # the id of the miniature's ground class


@pytest.fixture(scope='module')
def bundle(places):
    train(places, 'node')
    return places / 'node' / 'bundle'


def test_the_node_serves_the_bundle(bundle):
    check_served(bundle)


def test_outside_the_hull_of_the_predicted_ground_nothing_is_an_anomaly(bundle):
    def hull(detection):
        inside = ground_hull(class_table([GROUND])[detection.labels])
        assert 0 < inside.mean() < 1
        return inside

    check_served(bundle, hull, 'ground')
