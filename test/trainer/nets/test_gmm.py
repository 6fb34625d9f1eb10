# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Gaussian mixtures as classifiers against scipy, sklearn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from scipy.stats import multivariate_normal  # noqa: E402
from sklearn.mixture import GaussianMixture  # noqa: E402
from torch.nn import functional  # noqa: E402

from trainer.nets.gmm import GmmHead, GmmSettings, sinkhorn  # noqa: E402


def test_sinkhorn_balances_both_margins():
    plan = sinkhorn(torch.randn(60, 5) * 0.1, rounds=50)
    np.testing.assert_allclose(plan.sum(0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(1), 60 / 5, rtol=1e-3)


def gmm_of(combine, classes=2, components=3, width=4):
    torch.manual_seed(0)
    head = GmmHead(width, classes, GmmSettings(components, 10, combine=combine, class_norm=False))
    head.variances.uniform_(0.2, 2.0)
    return head.double()


def test_one_component_is_the_normal_density_of_scipy():
    head = gmm_of('max', 1, 1)
    unit = functional.normalize(torch.randn(20, 4, dtype=torch.float64), dim=-1)
    mean = functional.normalize(head.means[0, 0], dim=-1).numpy()
    expected = multivariate_normal(mean, np.diag(head.variances[0, 0].numpy())).logpdf(unit)
    np.testing.assert_allclose(head.log_densities(unit)[:, 0, 0], expected, rtol=1e-10)


def test_the_mixture_sum_is_that_of_sklearn_and_max_is_the_largest_component():
    head = gmm_of('sum', 1, 3)
    unit = functional.normalize(torch.randn(20, 4, dtype=torch.float64), dim=-1)
    densities = head.log_densities(unit)
    mixture = GaussianMixture(3, covariance_type='diag')
    mixture.weights_ = np.full(3, 1 / 3)
    mixture.means_ = functional.normalize(head.means[0], dim=-1).numpy()
    mixture.covariances_ = head.variances[0].numpy()
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    np.testing.assert_allclose(
        head.scores(densities)[:, 0], mixture.score_samples(unit), rtol=1e-9
    )
    largest = gmm_of('max', 1, 3).scores(densities)[:, 0]
    np.testing.assert_allclose(largest, densities[:, 0].max(1).values)


def test_the_estimates_are_mean_direction_and_variance_of_the_queue():
    head = GmmHead(4, 2, GmmSettings(3, 50, momentum=0.0)).double()
    head._update(torch.tensor([1]))
    queue = head.queue[1].numpy()
    mean = queue.mean(1) / np.linalg.norm(queue.mean(1), axis=1, keepdims=True)
    np.testing.assert_allclose(head.means[1], mean, rtol=1e-9)
    spread = ((queue - mean[:, None]) ** 2).mean(1) + 0.01
    np.testing.assert_allclose(head.variances[1], spread, rtol=1e-9)
    assert (head.variances[0] == 1).all()  # a class that is not present


def test_the_variances_are_those_of_the_queue_around_the_mean_in_use():
    """After momentum the mean lags behind the queue: its likeliest variances are around it."""
    head = GmmHead(4, 1, GmmSettings(2, 50, momentum=0.9, floor=0.0)).double()
    head.queue[:] = functional.normalize(head.queue + 2.0, dim=-1)
    head._update(torch.tensor([0]))
    fitted = head.variances.clone()

    def likelihood(variances):
        head.variances[:] = variances
        each = head.log_densities(head.queue[0].reshape(-1, 4))[:, 0].reshape(2, 50, 2)
        return float(each[0, :, 0].sum() + each[1, :, 1].sum())

    best = likelihood(fitted)
    for factor in (0.9, 1.1):
        assert likelihood(fitted * factor) < best
    direction = functional.normalize(head.queue[0].mean(1), dim=-1)
    newest = ((head.queue[0] - direction[:, None]) ** 2).mean(1)
    assert likelihood(newest[None]) < best


def test_the_norm_over_two_classes_makes_their_difference_nearly_a_sign():
    head = GmmHead(4, 2, GmmSettings(queue=10))
    head.variances.uniform_(0.2, 2.0)
    scores = head(torch.randn(500, 4)).detach()
    difference = (scores[:, 1] - scores[:, 0]).abs()
    assert (difference > 1.9).float().mean() > 0.9
    assert difference.max() <= 2.0001
