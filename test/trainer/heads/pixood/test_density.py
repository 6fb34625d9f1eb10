# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Densities against scipy, the Neyman-Pearson table against closed form and Monte Carlo."""

import numpy as np
import pytest
from monotone_curves import surprisal_of

from ood_perception.errors import DataError

pytest.importorskip('torch')
stats = pytest.importorskip('scipy.stats')
from trainer.calibration.monotone_curve import curve_through  # noqa: E402
from trainer.heads.pixood.density import (  # noqa: E402
    Gaussian,
    background_gaussian,
    fit_gaussian,
    neyman_pearson_curve,
    pooled_variances,
    similarity,
)

KNOWN = Gaussian(np.array([6.0, 0.12]), np.array([[2.0, 0.006], [0.006, 1e-4]]))
BACKGROUND = Gaussian(np.zeros(2), np.diag([1.8**2, 0.018**2]))


def draws(gaussian, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(gaussian.mean, gaussian.covariance, count)


def test_log_density_is_scipys():
    z = draws(KNOWN, 100)
    expected = stats.multivariate_normal(KNOWN.mean, KNOWN.covariance).logpdf(z)

    np.testing.assert_allclose(KNOWN.log_density(z), expected, rtol=1e-10)


def test_similarity_is_one_at_distance_zero_and_a_half_at_two():
    np.testing.assert_allclose(similarity([0.0, 2.0, 18.0]), [1.0, 0.5, 0.1])


def test_with_many_patches_the_fit_is_the_sample_covariance():
    z = draws(KNOWN, 200_000)

    got = fit_gaussian(z, np.array([50.0, 1.0]))

    np.testing.assert_allclose(got.mean, z.mean(0))
    expected = np.cov(z, rowvar=False)
    np.testing.assert_allclose(got.covariance, expected, atol=50 * 1e-4, rtol=1e-2)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_with_few_patches_the_fit_stays_well_conditioned(count):
    z = np.repeat(draws(KNOWN, 1), count, axis=0)

    covariance = fit_gaussian(z, np.array([2.0, 1e-4])).covariance

    assert np.linalg.eigvalsh(covariance).min() > 1e-5


def test_pooled_variances_ignore_the_classes_means():
    groups = [draws(KNOWN, 5000, seed) + shift for seed, shift in enumerate((0, 50, -70))]

    np.testing.assert_allclose(pooled_variances(groups), np.diag(KNOWN.covariance), rtol=0.05)


def test_scores_that_never_vary_are_refused():
    with pytest.raises(DataError, match='must vary'):
        pooled_variances([np.ones((10, 2))])


def test_background_deviations_come_from_each_classes_own_quantiles():
    groups = [draws(KNOWN, 500, seed) * factor for seed, factor in ((0, 1), (1, 3))]
    quantiles = np.mean([np.quantile(g, 0.9, axis=0) for g in groups], axis=0)

    got = background_gaussian([*groups, np.empty((0, 2))])

    np.testing.assert_allclose(np.sqrt(np.diag(got.covariance)), quantiles / [4, 8])
    assert (got.mean == 0).all()


def test_against_a_flat_background_the_error_is_the_chi_squared_tail():
    known = Gaussian(np.array([3.0, 0.5]), np.array([[1.0, 0.01], [0.01, 4e-4]]))
    flat = Gaussian(np.zeros(2), np.diag([1e9, 1e9]))
    curve = neyman_pearson_curve(known, flat)
    squared = np.linspace(0.05, 50, 100)  # e = exp(-m^2 / 2) in two dimensions
    x = -(known.log_density(known.mean) - squared / 2 - flat.log_density(known.mean))

    expected = squared / 2 / np.log(10)
    np.testing.assert_allclose(surprisal_of(curve, x), expected, rtol=2e-3, atol=2e-3)


def test_the_error_is_the_share_of_known_patches_with_a_lower_ratio():
    curve = neyman_pearson_curve(KNOWN, BACKGROUND)
    z = draws(KNOWN, 400_000)
    ratio = KNOWN.log_density(z) - BACKGROUND.log_density(z)
    for e in (0.9, 0.5, 0.1, 0.01, 0.001):
        threshold = np.quantile(ratio, e)
        got = 10 ** -surprisal_of(curve, -threshold)
        assert got == pytest.approx(e, abs=5 * np.sqrt(e * (1 - e) / 400_000) + 2e-3 * e)


def test_a_finer_grid_changes_nothing_that_matters():
    coarse = neyman_pearson_curve(KNOWN, BACKGROUND, grid=1000)
    fine = neyman_pearson_curve(KNOWN, BACKGROUND, grid=2000)
    x = np.linspace(fine.start, fine.stop, 500)

    np.testing.assert_allclose(surprisal_of(coarse, x), surprisal_of(fine, x), atol=0.02)


def test_equal_scores_give_no_curve():
    with pytest.raises(DataError, match='1 distinct'):
        curve_through(np.array([1.0]), np.array([0.5]), deepest=1e-3, shallowest=0.999)
    with pytest.raises(DataError, match='2 distinct'):  # the lower one has e = 1
        curve_through(np.array([1.0, 2]), np.array([1, 0.5]), deepest=1e-3, shallowest=0.999)
