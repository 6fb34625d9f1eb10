# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The search as a stage of its own: taken out of the graph whole, and searched by faiss."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
faiss = pytest.importorskip('faiss', reason='pip install faiss-cpu')
onnx = pytest.importorskip('onnx')
pytest.importorskip('openvino')

from sklearn.neighbors import NearestNeighbors  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.engines.faiss import NeighbourIndex  # noqa: E402
from ood_perception.engines.graphs.head_cuts import Search, cut_searches  # noqa: E402
from ood_perception.errors import BundleError, DependencyError  # noqa: E402
from ood_perception.requirements import install_command  # noqa: E402
from trainer.export.onnx import store_half, to_onnx  # noqa: E402
from trainer.heads.knn import model as knn_model  # noqa: E402
from trainer.heads.knn.model import NearestReferences  # noqa: E402

WIDTH, GRID, K = 32, (3, 5), 3


class Head(torch.nn.Module):
    """Two searches among other operators, as a head has them."""

    def __init__(self, *searches):
        super().__init__()
        self.members = torch.nn.ModuleList([Member(one) for one in searches])

    def forward(self, tokens, keys):
        return sum(member(keys) for member in self.members) + tokens.mean(3)


class Member(torch.nn.Module):
    def __init__(self, search):
        super().__init__()
        self.search = search

    def forward(self, keys):
        return self.search(keys) * 2 + 1


def exported(monkeypatch, *heads, piece=100):
    """Return the modules and the graph of a head that searches with each number of heads."""
    monkeypatch.setattr(knn_model, 'PIECE', piece)
    rng = np.random.default_rng(2)
    modules = []
    for count in heads:
        references = torch.from_numpy((10 + rng.normal(size=(256, WIDTH))).astype(np.float32))
        modules.append(NearestReferences(references, K, count, half=True))
    tokens = torch.from_numpy((10 + rng.normal(size=(2, *GRID, WIDTH))).astype(np.float32))
    model = to_onnx(Head(*modules), (tokens, tokens), ('tokens', 'keys'), ('score',))
    store_half(model)
    return modules, tokens, model


def run(model, **feeds):
    onnx.checker.check_model(model)
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=runtime.get_available_providers()
    )
    return session.run(None, feeds)[0]


@pytest.mark.parametrize('heads', [(1,), (4,), (1, 2)])
def test_a_search_is_taken_out_whole(heads, monkeypatch):
    modules, tokens, model = exported(monkeypatch, *heads)
    keys = tokens.numpy()
    whole = run(model, tokens=keys, keys=keys)
    searches = cut_searches(model)
    assert [one.heads for one in searches] == list(heads)
    for module, search in zip(modules, searches, strict=True):
        assert (search.feature, search.grid, search.k) == ('keys', GRID, K)
        np.testing.assert_allclose(
            search.references + search.center, module.effective.numpy(), atol=1e-5
        )
    assert [value.name for value in model.graph.input][:1] == ['tokens']  # keys are read no more
    assert not any(len(t.dims) > 1 and 256 in t.dims for t in model.graph.initializer)
    found = {s.distance: NeighbourIndex(faiss, s, exact=True).distances(keys) for s in searches}
    np.testing.assert_allclose(run(model, tokens=keys, **found), whole, rtol=1e-5)


def test_a_head_without_a_search_stays_as_it_is(monkeypatch):
    model = to_onnx(torch.nn.Linear(4, 2), (torch.ones(1, 4),), ('x',), ('y',))
    before = model.SerializeToString()
    assert cut_searches(model) == ()
    assert model.SerializeToString() == before


def test_a_foreign_search_is_refused(monkeypatch):
    _, _, model = exported(monkeypatch, 1)
    for node in list(model.graph.node):
        if node.op_type == 'TopK':
            node.op_type = 'Other'
    with pytest.raises(BundleError, match='no TopK; pack again'):
        cut_searches(model)


def clustered(count, seed, heads=1):
    """Return a search and queries around the same clusters."""
    rng = np.random.default_rng(seed)
    spots = rng.normal(0, 4, (60, WIDTH))

    def draw(n):
        places = spots[rng.integers(0, 60, n)]
        return (places + rng.normal(size=(n, WIDTH))).astype(np.float32)

    center = np.full(WIDTH, 2, np.float32)
    search = Search('keys', 'distance', (10, 20), K, heads, center, draw(count))
    return search, draw(200).reshape(1, 10, 20, WIDTH) + center


def oracle(search, queries):
    flat = queries.reshape(-1, WIDTH) - search.center
    width = WIDTH // search.heads
    parts = [slice(h * width, (h + 1) * width) for h in range(search.heads)]
    return np.mean(
        [
            NearestNeighbors(n_neighbors=K)
            .fit(search.references[:, p])
            .kneighbors(flat[:, p])[0]
            .mean(1)
            for p in parts
        ],
        0,
    ).reshape(queries.shape[:3])


@pytest.mark.parametrize('heads', [1, 4])
def test_the_exact_index_is_sklearns(heads):
    search, queries = clustered(5000, 1, heads)
    index = NeighbourIndex(faiss, search, exact=True, threads=1)
    np.testing.assert_allclose(index.distances(queries), oracle(search, queries), rtol=1e-4)


def test_lists_miss_few_neighbours_and_never_find_nearer_ones():
    search, queries = clustered(10_000, 2)
    found = NeighbourIndex(faiss, search, exact=False, threads=1).distances(queries)
    ratio = found / oracle(search, queries)
    assert ratio.min() > 1 - 1e-4
    assert np.mean(ratio > 1.001) < 0.05
    assert ratio.max() < 1.5


def test_lists_with_too_few_references_are_searched_on():
    """All but three references are one point: the probed lists may hold fewer than k."""
    search, queries = clustered(6000, 3)
    search.references[6:] = search.references[0] + 1e-3 * np.arange(5994)[:, None]
    found = NeighbourIndex(faiss, search, exact=False, threads=1).distances(queries)
    assert np.isfinite(found).all()
    assert (found >= oracle(search, queries) * (1 - 1e-4)).all()


@pytest.mark.parametrize('precision', ['f32', 'auto'])
def test_a_head_that_searches_nothing_is_refused(tiny_bundle, precision, caplog):
    with pytest.raises(BundleError, match='searches no references; use openvino'):
        create_engine(load_bundle(tiny_bundle), EngineOptions('faiss', precision, 1))
    assert 'is not used' not in caplog.text  # no precision is blamed for it


def test_the_extra_is_named_where_faiss_is_missing(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(DependencyError, match=re.escape(install_command('faiss'))):
        create_engine(load_bundle(tiny_bundle), EngineOptions('faiss', 'f32', 1))
