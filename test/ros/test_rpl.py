# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with an RPL bundle."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from rpl_recipes import train  # noqa: E402
from served_bundle import check_served  # noqa: E402
from uem_recipes import places  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros


def test_the_node_serves_the_bundle(places):
    train(places, 'node')
    check_served(places / 'node' / 'bundle')
