# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""cDNP: exact search against independent ones, normalisers by hand, the score in closed form."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from feature_sets import make_feature_set  # noqa: E402
from scipy.special import logsumexp  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.heads.knn import model as knn_model  # noqa: E402
from trainer.heads.knn.config import KnnConfig  # noqa: E402
from trainer.heads.knn.model import (  # noqa: E402
    KnnHead,
    NearestReferences,
    mean_distances,
    nearest_squared,
    upsampled_distance,
)
from trainer.heads.knn.references import LabelledFeatures, fit_knn, load_knn, save_knn  # noqa: E402
from trainer.nets.patch_classifier import Classifier  # noqa: E402

LAYERS = ('tokens_5', 'keys_11')
CLASSES = ('a', 'b', 'c')


def features_of(seed=0, images=6, dim=32):
    return make_feature_set(layers=LAYERS, images=images, dim=dim, seed=seed)


def classifier_of(dim=32):
    torch.manual_seed(1)
    return Classifier(dim, 3, ('tokens_5',), 'linear', 0).requires_grad_(False)


def fitted(config=None, heads=1, features=None):
    features = features or features_of()
    classifier = classifier_of()
    config = config or KnnConfig(references=100, normaliser_features=50)
    return fit_knn(features, classifier, CLASSES, config, classifier, heads=heads)


def oracle(queries, references, k):
    """Return the mean distance to the k nearest by sklearn's tree, float64."""
    tree = NearestNeighbors(n_neighbors=k, algorithm='kd_tree').fit(references.astype(float))
    return tree.kneighbors(queries.astype(float))[0].mean(1)


@pytest.mark.parametrize('k', [1, 3, 7])
def test_the_search_is_exact_in_pieces_of_any_size(k, monkeypatch):
    monkeypatch.setattr(knn_model, 'PIECE', 64)
    rng = np.random.default_rng(0)
    references = rng.normal(5, 1, (1001, 16)).astype(np.float16)
    queries = rng.normal(5, 1, (50, 16)).astype(np.float32)
    expected = oracle(queries, references, k)
    np.testing.assert_allclose(mean_distances(queries, references, k), expected, rtol=1e-5)
    monkeypatch.setattr(knn_model, 'PIECE', 2)  # smaller than k
    np.testing.assert_allclose(mean_distances(queries, references, k), expected, rtol=1e-5)


@pytest.mark.parametrize('k', [1, 3])
def test_the_search_is_that_of_faiss(k):
    faiss = pytest.importorskip('faiss', reason='pip install faiss-cpu')
    rng = np.random.default_rng(1)
    references = rng.normal(size=(5000, 64)).astype(np.float32)
    queries = rng.normal(size=(200, 64)).astype(np.float32)
    index = faiss.IndexFlatL2(64)
    index.add(references)
    squared, _ = index.search(queries, k)
    found = nearest_squared(torch.from_numpy(queries), references, k)
    np.testing.assert_allclose(found.numpy(), squared, rtol=1e-4)


def test_a_query_among_the_references_leaves_itself_out():
    points = np.array([[0.0, 0], [3, 4], [0, 1], [6, 8]], np.float32)
    expected = [(1 + 5) / 2, (np.hypot(3, 3) + 5) / 2, (1 + np.hypot(3, 3)) / 2]
    expected += [(5 + np.hypot(6, 7)) / 2]
    found = mean_distances(points, points, 2, others=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_too_few_references_are_refused():
    with pytest.raises(DataError, match='2 references have no 3 nearest'):
        mean_distances(np.ones((4, 2)), np.ones((2, 2)), 3)
    with pytest.raises(ConfigError, match='3 nearest of 2 references'):
        NearestReferences(torch.ones(2, 4), 3)
    with pytest.raises(ConfigError, match='32 columns cannot be split into 6'):
        mean_distances(np.ones((4, 32)), np.ones((9, 32)), 3, heads=6)


@pytest.mark.parametrize('heads', [1, 4])
@pytest.mark.parametrize('half', [False, True])
def test_the_graph_searches_like_the_oracle(heads, half, monkeypatch):
    monkeypatch.setattr(knn_model, 'PIECE', 100)
    rng = np.random.default_rng(2)
    references = (10 + rng.normal(size=(256, 32))).astype(np.float16)
    tokens = torch.from_numpy((10 + rng.normal(size=(2, 3, 5, 32))).astype(np.float32))
    module = NearestReferences(torch.from_numpy(references.astype(np.float32)), 3, heads, half)
    used = module.effective.numpy()
    assert np.abs(used - references).max() <= (2e-3 if half else 2e-6)
    width = 32 // heads
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    flat = tokens.reshape(-1, 32).numpy()
    expected = np.mean([oracle(flat[:, p], used[:, p], 3) for p in parts], 0)
    np.testing.assert_allclose(module(tokens).numpy().ravel(), expected, rtol=1e-5)


def test_only_labelled_cells_are_drawn_and_a_prefix_is_a_smaller_draw():
    features = features_of()
    labels = np.array(features.labels)
    labels[:, :28] = 255
    features = replace(features, labels=labels)
    known = LabelledFeatures(features, 'keys_11', seed=3)
    assert len(known) == 6 * 4 * 8  # two of six rows of cells are void
    every = known.first(0)
    grid = np.asarray(features.tokens['keys_11'])[:, 2:].reshape(-1, 32)
    np.testing.assert_array_equal(np.sort(every, axis=None), np.sort(grid, axis=None))
    np.testing.assert_array_equal(known.first(20), every[:20])
    assert not np.array_equal(LabelledFeatures(features, 'keys_11', seed=4).first(20), every[:20])
    road = LabelledFeatures(features, 'keys_11', chosen=[1])
    assert len(road) == (labels[:, 7::14, 7::14] == 1).sum()
    with pytest.raises(DataError, match='no cell has a label'):
        LabelledFeatures(features, 'keys_11', chosen=[77])


def test_normalisers_are_those_of_the_reference_images():
    features = features_of()
    labels = np.array(features.labels)
    labels[0] = 255
    features = replace(features, labels=labels)
    config = KnnConfig(references=0, k=2, normaliser_features=10_000)
    model = fitted(config, features=features)
    tokens = np.asarray(features.tokens['tokens_5'])[1:].astype(np.float32)
    logits = classifier_of()(torch.from_numpy(tokens)).numpy()
    score = 1 - logsumexp(logits, -1)
    np.testing.assert_allclose([model.low, model.high], [score.min(), score.max()], rtol=1e-5)
    keys = np.asarray(features.tokens['keys_11'])[1:].reshape(-1, 32)
    tree = NearestNeighbors(n_neighbors=3).fit(keys)
    others = tree.kneighbors(keys)[0][:, 1:].mean(1)
    np.testing.assert_allclose(model.farthest, others.max(), rtol=1e-4)
    assert len(model.references) == len(keys)


@pytest.mark.parametrize('factor', [1, 3])
def test_scores_are_their_definitions(factor):
    model = fitted(KnnConfig(references=100, normaliser_features=50, upsample='nearest'))
    features = features_of(seed=9, images=2)
    tokens = [torch.from_numpy(np.array(features.tokens[n])).float() for n in LAYERS]
    logits = torch.nn.functional.interpolate(
        model.classifier(tokens[0]).permute(0, 3, 1, 2), scale_factor=factor, mode='bilinear'
    )
    keys = tokens[1].reshape(-1, 32).numpy()
    distance = oracle(keys, model.references, 3).reshape(2, 6, 8)
    distance = distance.repeat(factor, 1).repeat(factor, 2)
    parametric = 1 - logsumexp(logits.numpy(), 1)
    scaled = (parametric - model.low) / (model.high - model.low)
    expected = {
        'distance': distance,
        'logsumexp': scaled,
        'combined': scaled + distance / model.farthest,
    }
    for score, values in expected.items():
        head = KnnHead(model, upsampling=factor, score=score)
        raw, labels = head.raw_scores(*tokens)
        found = raw[:, 0].numpy()
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-6, err_msg=score)
        np.testing.assert_array_equal(labels.numpy(), logits.argmax(1).numpy())


def test_the_distance_map_is_upsampled_as_asked():
    small = torch.arange(6.0).reshape(1, 2, 3)
    assert torch.equal(upsampled_distance(small, 1, 'bilinear'), small)
    nearest = upsampled_distance(small, 2, 'nearest')
    np.testing.assert_array_equal(nearest[0].numpy(), np.kron(small[0], np.ones((2, 2))))
    smooth = upsampled_distance(small, 2, 'bilinear')[0]
    assert smooth[0, 1] == 0.25


def test_a_searched_layer_that_the_classifier_reads_is_read_once():
    features = features_of()
    config = KnnConfig(feature='tokens_5', references=50, normaliser_features=50)
    model = fit_knn(features, classifier_of(), CLASSES, config, classifier_of())
    head = KnnHead(model, upsampling=1)
    assert head.layers == ('tokens_5',)
    tokens = torch.from_numpy(np.array(features.tokens['tokens_5'][:1])).float()
    raw, _ = head.raw_scores(tokens)
    assert raw.shape == (1, 1, 6, 8)


def test_a_model_is_read_as_it_was_written(tmp_path):
    model = fitted()
    save_knn(model, tmp_path)
    again = load_knn(tmp_path)
    np.testing.assert_array_equal(again.references, model.references)
    for name in ('classes', 'feature', 'heads', 'k', 'low', 'high', 'farthest', 'upsample'):
        assert getattr(again, name) == getattr(model, name)
    assert again.report == model.report
    (tmp_path / 'knn.npz').write_bytes(b'nothing')
    with pytest.raises(DataError, match='no nearest-neighbour model'):
        load_knn(tmp_path)


def test_wrong_settings_are_refused_by_name():
    wrong = [
        ({'feature': 'logits_3'}, 'keys_<block>'),
        ({'score': 'sum'}, "knn score 'sum': choose one of combined"),
        ({'coreset': 'k-center'}, 'condensation'),
        ({'upsample': 'cubic'}, 'nearest'),
        ({'k': 0}, 'k of at least 1'),
    ]
    for values, words in wrong:
        with pytest.raises(ConfigError, match=words):
            KnnConfig(**values)
    with pytest.raises(ConfigError, match=r"classes \['z'\]: known are a, b, c"):
        KnnHead(fitted(), classes=('z',))


MILLION = """
import resource, sys
import numpy as np, torch
from trainer.heads.knn.model import nearest_squared
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path, count, k = sys.argv[1], int(sys.argv[2]), 3
rng = np.random.default_rng(0)
references = np.lib.format.open_memmap(path, mode='r')
places = np.arange(64) * (count // 64) + 7
offsets = rng.normal(size=(64, references.shape[1]))
offsets *= 0.05 / np.linalg.norm(offsets, axis=1, keepdims=True)
queries = torch.from_numpy((references[places] + offsets).astype(np.float32))
np.save(sys.argv[3], nearest_squared(queries, references, k).sqrt().numpy())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_million_references_are_searched_exactly_in_bounded_memory(tmp_path):
    """Each query lies 0.05 beside a known reference; sampled others check the rest."""
    count, width = 1_000_000, 64
    path = tmp_path / 'references.npy'
    rng = np.random.default_rng(1)
    references = np.lib.format.open_memmap(path, 'w+', np.float16, (count, width))
    for start in range(0, count, 50_000):
        references[start : start + 50_000] = rng.normal(size=(50_000, width))
    references.flush()
    script = [sys.executable, '-c', MILLION, str(path), str(count), str(tmp_path / 'found.npy')]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    found = np.load(tmp_path / 'found.npy')
    np.testing.assert_allclose(found[:, 0], 0.05, atol=5e-3)
    places = np.arange(64) * (count // 64) + 7
    for query in (0, 31, 63):
        point = references[places[query]].astype(np.float64)
        parts = np.array_split(np.arange(count), 20)
        squares = [((references[p].astype(np.float64) - point) ** 2).sum(1) for p in parts]
        exact = np.sort(np.sqrt(np.concatenate(squares)))[1:3]
        np.testing.assert_allclose(found[query, 1:], exact, atol=0.06)  # the offset's length
    pages = count * width * 2 / resource.getpagesize() * (resource.getpagesize() / 1024)
    assert int(done.stdout) < pages + 120_000  # KiB: the mapped file itself and 120 MB
