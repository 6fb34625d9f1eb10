# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with a PixOOD and a UEM bundle: `bundle` is all that changes."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import MINIATURE  # noqa: E402
from served_bundle import check_served  # noqa: E402
from uem_recipes import places, train  # noqa: E402

from trainer.__main__ import main  # noqa: E402

__all__ = ['places']
pytestmark = pytest.mark.ros


@pytest.fixture(scope='module', params=['pixood', 'uem'])
def bundle(request, places):
    """Train a bundle of each kind on the same images."""
    if request.param == 'uem':
        train(places, 'discriminative', 'node')
        return places / 'node' / 'bundle'
    text = MINIATURE.replace('WEIGHTS', str(places / 'tiny.safetensors'))
    recipe = places / 'pixood.yaml'
    recipe.write_text(text.replace('ROOT', str(places / 'data')))
    options = ['--out', str(places / 'pixood'), '--cache', str(places / 'cache'), '--quiet']
    assert main(['train', str(recipe), *options]) == 0
    return places / 'pixood' / 'bundle'


def test_the_node_serves_either_bundle_by_its_parameter_alone(bundle):
    check_served(bundle)
