# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Baselines on features: Mahalanobis distance and Gaussian-mixture density, fitted and served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import DataError, DependencyError

from ..upsampling import half_rounded, upsample
from .config import BaselineConfig

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MahalanobisFit:
    """means: float64 (C, D) a class. whitening: float64 (D, D), W W^T = inverse covariance."""

    means: Array
    whitening: Array


def fit_mahalanobis(
    classes: Sequence[npt.NDArray[np.floating]], shrinkage: float
) -> MahalanobisFit:
    """
    Fit class means and the covariance that all classes share (Lee et al., 2018).

    classes: float (N_c, D) each, not empty. The covariance S of the features around their class's
    mean becomes (1 - s) S + s tr(S) / D I.
    """
    if not classes or not all(len(one) for one in classes):
        raise DataError('Mahalanobis distances need features of every chosen class')
    means = np.stack([one.astype(np.float64).mean(0) for one in classes])
    width, count = means.shape[1], sum(len(one) for one in classes)
    scatter = np.zeros((width, width))
    for one, mean in zip(classes, means, strict=True):
        for start in range(0, len(one), 20_000):
            centered = one[start : start + 20_000].astype(np.float64) - mean
            scatter += centered.T @ centered
    covariance = scatter / count
    covariance *= 1 - shrinkage
    covariance += shrinkage / (1 - shrinkage) * np.trace(covariance) / width * np.eye(width)
    return MahalanobisFit(means, np.linalg.cholesky(np.linalg.inv(covariance)))


class Mahalanobis(nn.Module):
    """
    Squared Mahalanobis distance of the patches' features to the nearest class mean, upsampled.

    Differences are squared, not expanded: they are small beside the features' length.
    """

    center: torch.Tensor
    whitening: torch.Tensor
    means: torch.Tensor

    def __init__(self, fit: MahalanobisFit, factor: int, half: bool = False) -> None:
        super().__init__()
        self.factor = factor
        whitening = torch.from_numpy(fit.whitening).float()
        self.register_buffer('center', torch.from_numpy(fit.means.mean(0)).float())
        self.register_buffer('whitening', half_rounded(whitening) if half else whitening)
        means = torch.from_numpy(fit.means) - self.center.double()
        self.register_buffer('means', (means @ self.whitening.double()).float())

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, gh*f, gw*f) of last tokens (B, gh, gw, D), higher = stranger."""
        whitened = (last - self.center) @ self.whitening
        differences = whitened.unsqueeze(3) - self.means
        squared = (differences * differences).sum(4).amin(3, keepdim=True)
        return upsample(squared, self.factor)[..., 0]


@dataclass(frozen=True, eq=False)
class GmmFit:
    """
    A mixture on principal components z = (x - center) @ basis.

    basis: float64 (D, R). means: (K, R). precisions: (K, R, R), P P^T = inverse covariance.
    log_weights: (K,).
    """

    center: Array
    basis: Array
    means: Array
    precisions: Array
    log_weights: Array


def fit_gmm(features: npt.NDArray[np.floating], config: BaselineConfig) -> GmmFit:
    """Fit the mixture on features float (N, D); at most config.samples of them, drawn."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise DependencyError(
            "the baseline gmm needs scikit-learn: pip install 'ood_perception[train]'"
        ) from error
    if len(features) < 2 * config.components:
        raise DataError(f'{len(features)} features are too few for {config.components} Gaussians')
    draw = np.random.default_rng(config.seed).permutation(len(features))[: config.samples]
    sample = features[np.sort(draw)].astype(np.float64)
    center = sample.mean(0)
    _, vectors = np.linalg.eigh(np.cov(sample - center, rowvar=False))
    basis = vectors[:, ::-1][:, : config.reduced]
    mixture = GaussianMixture(
        config.components, covariance_type='full', reg_covar=1e-4, random_state=config.seed
    ).fit((sample - center) @ basis)
    return GmmFit(
        center, basis, mixture.means_, mixture.precisions_cholesky_, np.log(mixture.weights_)
    )


class GmmDensity(nn.Module):
    """Minus the mixture's log density of the patches' features, upsampled."""

    center: torch.Tensor
    basis: torch.Tensor
    constants: torch.Tensor

    def __init__(self, fit: GmmFit, factor: int, half: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.count, self.reduced = fit.means.shape
        basis = torch.from_numpy(fit.basis.copy()).float()
        self.register_buffer('center', torch.from_numpy(fit.center).float())
        self.register_buffer('basis', half_rounded(basis) if half else basis)
        stacked = np.concatenate(list(fit.precisions), 1)
        matrix = torch.from_numpy(stacked).float()
        matrix = half_rounded(matrix) if half else matrix
        used = matrix.double().numpy().reshape(self.reduced, self.count, self.reduced)
        offsets = np.einsum('kr,rks->ks', fit.means, used)
        self.matrix = nn.Parameter(matrix, requires_grad=False)
        self.register_buffer('offsets', torch.from_numpy(offsets.reshape(-1)).float())
        diagonals = np.diagonal(fit.precisions, axis1=1, axis2=2)
        constants = np.log(diagonals).sum(1) - 0.5 * self.reduced * math.log(2 * math.pi)
        self.register_buffer('constants', torch.from_numpy(constants + fit.log_weights).float())

    def forward(self, logits: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Return float (B, gh*f, gw*f) of last tokens (B, gh, gw, D), higher = stranger."""
        reduced = (last - self.center) @ self.basis
        whitened = reduced @ self.matrix - self.offsets
        rows, columns = int(last.shape[1]), int(last.shape[2])
        parts = whitened.reshape(-1, rows, columns, self.count, self.reduced)
        logs = self.constants - 0.5 * (parts * parts).sum(4)
        score = -torch.logsumexp(logs, 3)
        return upsample(score.unsqueeze(3), self.factor)[..., 0]
