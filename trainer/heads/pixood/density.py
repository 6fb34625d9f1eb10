# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Gaussians over (logit, similarity) and the Neyman-Pearson table (PixOOD, section III-D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

from ...calibration.monotone_curve import KNOTS, CalibrationCurve, curve_through

FloatArray = npt.NDArray[np.float64]
GRID = 2000
_PSEUDO_PATCHES = 10.0
_SPAN = 12.0
_DEEPEST = 1e-12
_SHALLOWEST = 1e-4


@dataclass(frozen=True)
class Gaussian:
    """
    A Gaussian over z = (z1, z2) = (logit, similarity).

    mean: float64 (2,). covariance: float64 (2, 2), positive definite.
    """

    mean: FloatArray
    covariance: FloatArray

    def log_density(self, z: npt.ArrayLike) -> FloatArray:
        """Return ln p(z), float64 (...,), of z (..., 2)."""
        difference = np.asarray(z, dtype=np.float64) - self.mean
        squared = np.einsum('...i,ij,...j->...', difference, self.precision, difference)
        return np.asarray(-0.5 * squared - self.log_normaliser)

    @property
    def precision(self) -> FloatArray:
        """The inverse covariance, float64 (2, 2)."""
        return np.asarray(np.linalg.inv(self.covariance))

    @property
    def log_normaliser(self) -> float:
        """The constant ln(2 pi) + ln det(covariance) / 2, subtracted from -m^2 / 2."""
        return float(np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(self.covariance)[1])


def similarity(distance: npt.ArrayLike) -> FloatArray:
    """Return z2 = 1 / (1 + d / 2) in (0, 1] of distances d >= 0."""
    return np.asarray(1.0 / (1.0 + 0.5 * np.asarray(distance, dtype=np.float64)))


def pooled_variances(groups: Sequence[FloatArray]) -> FloatArray:
    """Return the within-class variance of each coordinate, float64 (2,), of (N_c, 2) groups."""
    squares = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups if len(group))
    count = sum(max(len(group) - 1, 0) for group in groups)
    variances = np.asarray(squares) / max(count, 1)
    if not (np.isfinite(variances).all() and (variances > 0).all()):
        raise DataError(
            f'logit and similarity have within-class variances {variances}: they must vary to be '
            'modelled; check the classifier and that there are fewer etalons than patches'
        )
    return np.asarray(variances)


def fit_gaussian(z: FloatArray, prior_variances: FloatArray) -> Gaussian:
    """
    Fit mean and covariance, shrunk as if ten more patches had the pooled, diagonal covariance.

    z: float64 (N, 2), N >= 1. prior_variances: float64 (2,) > 0. For many patches this is the
    unbiased sample covariance; for few it stays well conditioned.
    """
    count = len(z)
    if count == 0:
        raise DataError('a density needs at least one patch')
    sample = np.cov(z, rowvar=False) if count > 1 else np.zeros((2, 2))
    weight = (count - 1) / (count - 1 + _PSEUDO_PATCHES)
    covariance = weight * sample + (1 - weight) * np.diag(prior_variances)
    return Gaussian(z.mean(0), covariance)


def background_gaussian(groups: Sequence[FloatArray]) -> Gaussian:
    """
    Return the density of the unknown: zero mean, diagonal, deterministic.

    Its standard deviations are 1/4 (logit) and 1/8 (similarity) of the mean over the classes of
    each class's own 0.9 quantile. groups: float64 (N_c, 2) a class.
    """
    quantiles = [np.quantile(group, 0.9, axis=0) for group in groups if len(group)]
    a, b = np.abs(np.mean(quantiles, axis=0)) * (1 / 4, 1 / 8)
    if not (a > 0 and b > 0):
        raise DataError(f'the density of the unknown has deviations {a:g}, {b:g}: refit')
    return Gaussian(np.zeros(2), np.diag([a**2, b**2]))


def error_curve(
    known: Gaussian, background: Gaussian, grid: int = GRID
) -> tuple[FloatArray, FloatArray]:
    """
    Return (ln r ascending, e): e is the mass of p_ID where the ratio is at most r.

    The grid of grid x grid cell centres covers 12 standard deviations around the mean, inside
    0 <= z2 <= 1 where similarities live; float64, each (grid^2,). Sums run from the
    smallest ratio up, so tiny e stay exact.
    """
    spans = _SPAN * np.sqrt(np.diag(known.covariance))
    low, high = known.mean - spans, known.mean + spans
    low[1], high[1] = max(low[1], 0.0), min(high[1], 1.0)
    axes = [
        lo + (np.arange(grid) + 0.5) / grid * (hi - lo) for lo, hi in zip(low, high, strict=True)
    ]
    ratios, masses = [], []
    for rows in np.array_split(axes[0], max(grid // 100, 1)):
        z = np.stack(np.meshgrid(rows, axes[1], indexing='ij'), -1).reshape(-1, 2)
        density = known.log_density(z)
        ratios.append(density - background.log_density(z))
        masses.append(np.exp(density))
    ratio, mass = np.concatenate(ratios), np.concatenate(masses)
    order = np.argsort(ratio, kind='stable')
    errors = np.cumsum(mass[order])
    return ratio[order], errors / errors[-1]


def neyman_pearson_curve(
    known: Gaussian, background: Gaussian, grid: int = GRID, knots: int = KNOTS
) -> CalibrationCurve:
    """Return the paper's table: x = -ln r to surprisal = -log10 of the error at threshold r."""
    ratio, error = error_curve(known, background, grid)
    middles = 0.5 * (ratio[1:] + ratio[:-1])  # the error of a threshold between two cells
    x, e = -middles[::-1], error[:-1][::-1]
    return curve_through(x, e, deepest=_DEEPEST, shallowest=1 - _SHALLOWEST, knots=knots)
