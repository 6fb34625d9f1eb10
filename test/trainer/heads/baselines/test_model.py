# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classical scores against their definitions, and as bundles that an engine reproduces."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from feature_sets import make_feature_set  # noqa: E402
from pixood_features import LAYERS, classifier, head_of, model  # noqa: E402
from pixood_features import train as train_set  # noqa: E402
from scipy.spatial.distance import mahalanobis  # noqa: E402
from scipy.special import softmax  # noqa: E402
from scipy.stats import entropy as scipy_entropy  # noqa: E402
from sklearn.covariance import ShrunkCovariance  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.mixture import GaussianMixture  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.heads.baselines.config import BaselineConfig  # noqa: E402
from trainer.heads.baselines.model import (  # noqa: E402
    LOGIT_SCORES,
    EtalonDistance,
    GmmDensity,
    Mahalanobis,
    ScaledSoftmax,
    StandardisedMaxLogit,
    max_softmax,
    read_layers,
)
from trainer.heads.baselines.training import (  # noqa: E402
    fit_gmm,
    fit_mahalanobis,
    logit_statistics,
    source_weights,
)
from trainer.heads.upsampling import PatchLogits, upsample  # noqa: E402

__all__ = ['classifier', 'model', 'train_set']


@pytest.fixture(name='train', scope='module')
def _train(train_set):
    return train_set


def tokens_of(features):
    return [torch.from_numpy(np.array(features.tokens[name])).float() for name in LAYERS]


def test_scores_are_their_definitions():
    logits = torch.randn(50, 6, dtype=torch.float64)
    values, places = logits.numpy(), [1, 4]
    p = softmax(values, axis=1)
    expected = {
        'max_logit': -values[:, places].max(1),
        'max_softmax': -np.log(p[:, places].max(1)),
        'energy': -np.log(np.exp(values).sum(1)),
        'entropy': scipy_entropy(p, axis=1),
    }
    assert set(expected) == set(LOGIT_SCORES)
    for name, score in LOGIT_SCORES.items():
        np.testing.assert_allclose(score(logits, places), expected[name], rtol=1e-9, err_msg=name)


def test_max_softmax_is_exact_where_a_class_is_nearly_certain():
    """-ln p of logits 20 apart: float32 keeps six digits of 2e-9, as float64 has them."""
    rng = np.random.default_rng(5)
    logits = (rng.normal(size=(200, 11)) * 20).astype(np.float32).astype(np.float64)
    exact = np.log1p(np.exp(np.sort(logits)[:, :-1] - logits.max(1, keepdims=True)).sum(1))
    got = max_softmax(torch.from_numpy(logits).float(), range(11)).numpy()
    assert exact.min() < 1e-7
    np.testing.assert_allclose(got, exact, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize('temperature', [1.0, 10.0, 1000.0])
def test_odin_is_the_softmax_at_its_temperature(temperature):
    torch.manual_seed(3)
    logits = 5 * torch.randn(4, 5, 6, 3, dtype=torch.float64)
    p = softmax(logits.numpy() / temperature, axis=-1)[..., [0, 2]].max(-1)
    found = ScaledSoftmax(temperature, [0, 2])(logits, logits)
    expected = temperature * (-np.log(p) - np.log(3))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
    single = ScaledSoftmax(temperature, [0, 2])(logits.float(), logits)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=2e-6)


def test_standardised_max_logit_standardises_by_the_winner():
    logits = torch.tensor([[[[5.0, 1.0, 9.0], [0.0, 3.0, 1.0], [2.0, 1.0, 7.0]]]])
    score = StandardisedMaxLogit(torch.tensor([4.0, 1.0]), torch.tensor([2.0, 0.5]), [0, 1])
    expected = [-(5 - 4) / 2, -(3 - 1) / 0.5, -(2 - 4) / 2]
    np.testing.assert_allclose(score(logits, logits)[0, 0], expected)


def test_its_statistics_are_those_of_the_training_pixels(model):
    features = make_feature_set(images=3, seed=4)
    labels = np.array(features.labels)
    labels[:, :14] = 255
    features = type(features)(
        features.names, features.tokens, labels, features.height, features.width, 14, 'key'
    )
    logits = PatchLogits(model.classifier, 'patch', 1, False)
    places = [0, 2]
    found = logit_statistics(features, logits, places)
    values = logits(*tokens_of(features))[:, 1:].detach().numpy()[..., places]
    winner, best = values.argmax(-1), values.max(-1)
    for i in range(2):
        mine = best[winner == i].astype(float)
        np.testing.assert_allclose(found['mean'][i], mine.mean(), rtol=1e-5)
        np.testing.assert_allclose(found['deviation'][i], mine.std(), rtol=1e-4)


def test_a_class_that_never_wins_is_standardised_like_all_pixels(model):
    features = make_feature_set(images=2, seed=4)
    logits = PatchLogits(model.classifier, 'patch', 1, False)
    with torch.no_grad():
        logits.classifier.output.bias[1] = -1e4
    found = logit_statistics(features, logits, [0, 1, 2])
    values = logits(*tokens_of(features)).detach().numpy().max(-1)
    np.testing.assert_allclose(found['mean'][1], values.mean(), rtol=1e-5)
    np.testing.assert_allclose(found['deviation'][1], values.std(), rtol=1e-4)


@pytest.mark.parametrize('factor', [1, 3])
def test_mahalanobis_is_scipys_to_the_nearest_mean(factor):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 8))
    classes = [rng.normal(i, 1, (200 + i, 8)) @ mixing for i in range(3)]
    fit = fit_mahalanobis(classes, 0.1)
    residuals = np.concatenate([c - c.mean(0) for c in classes])
    oracle = ShrunkCovariance(shrinkage=0.1, assume_centered=True).fit(residuals)
    tokens = torch.from_numpy(rng.normal(1, 2, (1, 3, 4, 8)) @ mixing).float()
    found = Mahalanobis(fit, factor)(tokens, tokens)
    features = tokens.reshape(-1, 8).double().numpy()
    expected = [
        min(mahalanobis(f, c.mean(0), oracle.precision_) ** 2 for c in classes) for f in features
    ]
    grid = torch.tensor(expected).reshape(1, 3, 4, 1)
    np.testing.assert_allclose(found, upsample(grid, factor)[..., 0], rtol=2e-5)


def test_standardising_is_whitening_the_standardised_features():
    rng = np.random.default_rng(3)
    scales = np.geomspace(0.01, 30, 8)
    one = rng.normal(2, 1, (500, 8)) @ rng.normal(size=(8, 8)) * scales
    fit = fit_mahalanobis([one], 0.3, standardise=True)
    deviation = one.std(0)
    oracle = fit_mahalanobis([one / deviation], 0.3)
    tokens = torch.from_numpy(rng.normal(0, 3, (1, 2, 3, 8)) * scales).float()
    scaled = (tokens / torch.from_numpy(deviation)).float()
    found = Mahalanobis(fit, 1)(tokens, tokens)
    np.testing.assert_allclose(found, Mahalanobis(oracle, 1)(scaled, scaled), rtol=1e-3)


def test_a_rank_measures_along_the_first_principal_directions_alone():
    rng = np.random.default_rng(5)
    one = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    tokens = torch.from_numpy(rng.normal(0, 3, (1, 2, 3, 6))).float()
    found = {}
    for rank in (0, 4, 6):
        fit = fit_mahalanobis([one], 0.2)
        found[rank] = Mahalanobis(fit, 1, rank=rank)(tokens, tokens).numpy()
    np.testing.assert_allclose(found[6], found[0], rtol=1e-4)
    covariance = ShrunkCovariance(shrinkage=0.2, assume_centered=True).fit(one - one.mean(0))
    variances, directions = np.linalg.eigh(covariance.covariance_)
    along = (tokens.numpy() - one.mean(0)) @ directions[:, -4:]
    np.testing.assert_allclose(found[4], (along**2 / variances[-4:]).sum(3), rtol=1e-4)


def test_balanced_sources_count_alike_however_many_images_they_have():
    rng = np.random.default_rng(4)
    many, few = rng.normal(0, 1, (900, 4)), rng.normal(6, 2, (100, 4))
    starts = np.array([0, 300, 900, 1000])
    weights = source_weights(['a', 'a', 'b'], starts)
    np.testing.assert_allclose([weights[:900].sum(), weights[900:].sum()], 1)
    fit = fit_mahalanobis([np.concatenate([many, few])], 0.1, [weights])
    repeated = fit_mahalanobis([np.concatenate([many, *[few] * 9])], 0.1)
    for name in fit:
        np.testing.assert_allclose(fit[name], repeated[name], rtol=1e-6)


def test_a_score_reads_the_blocks_that_the_recipe_names():
    config = BaselineConfig(layers=(8, 11))
    assert read_layers(['tokens_5', 'tokens_8', 'tokens_11'], config) == ('tokens_8', 'tokens_11')
    assert read_layers(['tokens_5', 'tokens_8'], BaselineConfig()) == ('tokens_8',)
    with pytest.raises(ConfigError, match='name these blocks in'):
        read_layers(['tokens_5'], config)


def test_the_density_is_sklearns_mixture_on_sklearns_components():
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 0.1, 12)
    features = np.concatenate([rng.normal(i, scales, (300, 12)) for i in (0, 4)])
    config = BaselineConfig(components=3, reduced=4, samples=10_000, seed=1)
    fit = fit_gmm([features[:70], features[70:]], config)
    tokens = torch.from_numpy(rng.normal(2, 3, (2, 3, 5, 12))).float()
    found = GmmDensity(fit, 1)(tokens, tokens).numpy().ravel()
    basis = PCA(4).fit(features)
    np.testing.assert_allclose(
        fit['basis'] @ fit['basis'].T, basis.components_.T @ basis.components_, atol=1e-6
    )
    mixture = GaussianMixture(3, covariance_type='full')
    mixture.weights_, mixture.means_ = np.exp(fit['log_weights']), fit['means']
    mixture.precisions_cholesky_ = fit['precisions']
    reduced = (tokens.reshape(-1, 12).double().numpy() - fit['center']) @ fit['basis']
    np.testing.assert_allclose(found, -mixture.score_samples(reduced), rtol=1e-4)
    coarse = GmmDensity(fit, 1, half=True)(tokens, tokens).numpy().ravel()
    np.testing.assert_allclose(coarse, found, rtol=2e-2, atol=0.1)


def test_features_that_are_too_few_are_refused():
    with pytest.raises(DataError, match='every chosen class'):
        fit_mahalanobis([np.ones((3, 2)), np.ones((0, 2))], 0.1)
    with pytest.raises(DataError, match='5 features are too few for 20'):
        fit_gmm([np.ones((5, 2))], BaselineConfig(components=20))


def test_the_distance_is_that_to_the_nearest_etalon_of_the_chosen_classes(model):
    source = head_of(model, 'min')
    tokens = tokens_of(make_feature_set(images=2, seed=4))
    found = EtalonDistance(source)(tokens[-1], tokens[-1])
    torch.testing.assert_close(found, torch.stack(source.nearest(tokens[-1])).amin(0))


def test_wrong_settings_are_refused_by_name():
    for values, words in (
        ({'source': 'oracle'}, "baseline source 'oracle': choose one of classifier"),
        ({'temperature': 0.0}, 'above 0'),
        ({'shrinkage': 1.0}, 'between 0 and 1'),
        ({'components': 0}, 'at least 1'),
    ):
        with pytest.raises(ConfigError, match=words):
            BaselineConfig(**values)
