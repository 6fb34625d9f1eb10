# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The Gaussian of a shipped head: read, scored as the graph does, moved and written back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ood_perception.adapt.gaussian import WHITENING, Moments, gaussian_head, moments_of, shrunk
from ood_perception.bundle.store import load_bundle

openvino = pytest.importorskip('openvino')


@pytest.fixture(scope='module')
def head():
    bundle = load_bundle('road_open')
    return gaussian_head(bundle, bundle.manifest.heads[0])


@pytest.fixture(scope='module')
def tokens(head):
    """Tokens of two images, most of them as normal as those of the fit."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(np.diagonal(head.moments.covariance))
    drawn = head.moments.mean + spread * rng.normal(0, 0.8, (2, 27, 48, 768))
    return drawn.astype(np.float32)


def by_graph(content, head, tokens):
    """Return what an engine makes of tokens of the layers that the head reads."""
    exact = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.compile_model(openvino.Core().read_model(content), 'CPU', exact)
    half = tokens.shape[3] // 2
    given = {'tokens_5': tokens[..., :half]}  # OpenVINO drops the input that nothing reads
    given |= dict(zip(head.layers, (tokens[..., :half], tokens[..., half:]), strict=True))
    return compiled(given)['surprisal']


def test_it_is_read_with_the_layers_and_the_shrinkage_of_its_recipe(head):
    assert head.layers == ('tokens_8', 'tokens_11')
    assert head.size == (189, 336)
    assert head.shrinkage == 0.97
    assert head.rank == 384
    scale = np.sqrt(np.diagonal(head.moments.covariance))
    correlations = head.moments.covariance / np.outer(scale, scale)
    off = correlations - np.diag(np.diagonal(correlations))
    assert np.abs(off).max() < 0.03 + 1e-3  # shrunk: a thirtieth of a correlation is left


def test_numpy_scores_as_the_graph_does_before_and_after_it_is_moved(head, tokens):
    own = moments_of(tokens[0].reshape(-1, 768)[:900], head.shrinkage)
    for moments in (head.moments, head.moments.standardised_by(own)):
        content = head.with_moments(moments)
        expected = by_graph(content, head, tokens)
        np.testing.assert_allclose(head.surprisal(tokens, moments), expected, atol=5e-3)


def test_other_heads_are_left_alone():
    bundle = load_bundle('road_camvid')
    assert gaussian_head(bundle, bundle.manifest.heads[0]) is None


def test_a_whitening_that_is_not_whole_is_left_alone(tmp_path):
    import onnx

    bundle = load_bundle('road_open')
    stage = next(stage for stage in bundle.manifest.stages if 'surprisal' in stage.outputs)
    model = onnx.load(bundle.stage_path(stage))
    whitening = next(one for one in model.graph.initializer if WHITENING in one.name)
    kept = onnx.numpy_helper.to_array(whitening)[:, :512]
    whitening.CopyFrom(onnx.numpy_helper.from_array(kept, whitening.name))
    onnx.save(model, tmp_path / 'head.onnx')
    fewer = SimpleNamespace(manifest=bundle.manifest, stage_path=lambda _: tmp_path / 'head.onnx')
    assert gaussian_head(bundle, bundle.manifest.heads[0]) is not None
    assert gaussian_head(fewer, bundle.manifest.heads[0]) is None


def test_principal_directions_come_in_the_order_of_their_variance():
    rng = np.random.default_rng(3)
    scale = np.array([30, 1, 0.1, 5.0])
    moments = moments_of((rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))) * scale, 0.1)
    scale = np.sqrt(np.diagonal(moments.covariance))
    whitening = moments.whitening * scale[:, None]  # of standardised tokens
    correlations = moments.covariance / np.outer(scale, scale)
    np.testing.assert_allclose(whitening.T @ correlations @ whitening, np.eye(4), atol=0.01)
    variances = 1 / (whitening**2).sum(0)
    assert (np.diff(variances) < 0).all()


def test_joined_moments_are_those_of_the_pooled_tokens():
    rng = np.random.default_rng(1)
    first, second = (
        rng.normal(0, 1, (3000, 5)),
        rng.normal(1, 2, (1000, 5)) @ rng.normal(0, 1, (5, 5)),
    )
    apart = [moments_of(one, 0.3) for one in (first, second)]
    joined = apart[0].joined(apart[1], 0.25, 0.3)
    pooled = np.concatenate([first, second])
    np.testing.assert_allclose(joined.mean, pooled.mean(0))
    expected = shrunk(np.cov(pooled, rowvar=False), 0.3)
    np.testing.assert_allclose(joined.covariance, expected, rtol=3e-3, atol=3e-3)


def test_standardised_moments_keep_the_correlations_and_take_mean_and_deviations():
    rng = np.random.default_rng(2)
    home = Moments(np.zeros(3), np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 4.0]]))
    own = moments_of(rng.normal(3, 2, (4000, 3)), 0.0)
    moved = home.standardised_by(own)
    np.testing.assert_allclose(moved.mean, own.mean)
    np.testing.assert_allclose(np.diagonal(moved.covariance), np.diagonal(own.covariance))
    scale = np.sqrt(np.diagonal(moved.covariance))
    assert moved.covariance[0, 1] / (scale[0] * scale[1]) == pytest.approx(0.5)
