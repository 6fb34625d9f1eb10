# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph with bundles of nearest neighbours, of a baseline and of a fusion."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import LARGER, miniature, train  # noqa: E402
from served_bundle import check_served  # noqa: E402

__all__ = ['miniature']
pytestmark = pytest.mark.ros
FUSION = 'fusion.members=[{kind: pixood}, {kind: knn}]'
HEADS = {
    'knn': ('head.kind=knn', 'knn.references=60', 'knn.feature=keys_2'),
    'baseline': ('head.kind=baseline', 'head.score=mahalanobis'),
    'fusion': ('head.kind=fusion', 'knn.references=60', 'knn.feature=keys_2', FUSION),
}


@pytest.mark.parametrize('kind', sorted(HEADS))
def test_the_node_serves_the_bundle(kind, miniature):
    changes = [word for change in (*LARGER, *HEADS[kind]) for word in ('--set', change)]
    assert train(miniature, kind, *changes) == 0
    check_served(miniature / kind / 'bundle')


def test_the_node_searches_by_an_index(miniature):
    pytest.importorskip('faiss', reason='pip install faiss-cpu')
    changes = [word for change in (*LARGER, *HEADS['knn']) for word in ('--set', change)]
    assert train(miniature, 'knn', *changes) == 0  # found again where the test above made it
    check_served(miniature / 'knn' / 'bundle', engine='faiss')
