# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What single baselines learn from the training images, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.adapt.gaussian import principal_whitening
from ood_perception.errors import DataError, required
from ood_perception.image.geometry import labels_to_grid
from ood_perception.requirements import install_command

from ...feature_files import release
from ...features import FeatureSet, tokens_of
from ...progress import progress_bar
from .config import BaselineConfig

Array = npt.NDArray[np.float64]
_AT_ONCE = 20_000  # tokens whose float64 values are in memory


class Columns:
    """Arrays (N, D_i) side by side as one (N, D), put together where rows are asked for."""

    def __init__(self, parts: Sequence[npt.NDArray[np.floating]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, rows: Any) -> npt.NDArray[np.floating]:
        found = np.concatenate([part[rows] for part in self.parts], -1)
        for part in self.parts:
            release(part)
        return found


Tokens = npt.NDArray[np.floating] | Columns


def fit_mahalanobis(
    classes: Sequence[Tokens],
    shrinkage: float,
    weights: Sequence[Array] = (),
    standardise: bool = False,
) -> dict[str, Array]:
    """
    Fit class means and the covariance that all classes share (Lee et al., 2018).

    Return means, float64 (C, D), and whitening W, float64 (D, D), W W^T = inverse covariance; its
    columns are principal directions, those of most variance first.
    classes: float (N_c, D) each, not empty. weights: float (N_c,) each, () = all alike. The
    covariance S of the features around their class's mean becomes (1 - s) S + s tr(S) / D I.
    standardise: S is that of features divided by their deviations; W takes the features as they
    are all the same.
    """
    if not classes or not all(len(one) for one in classes):
        raise DataError('Mahalanobis distances need features of every chosen class')
    weights = weights or [np.ones(len(one)) for one in classes]
    pairs = list(zip(classes, weights, strict=True))
    means = np.stack([_mean(one, weight) for one, weight in pairs])
    width, total = means.shape[1], sum(weight.sum() for weight in weights)
    scatter = np.zeros((width, width))
    for (one, weight), mean in zip(pairs, means, strict=True):
        for part in _slices(len(one)):
            centered = one[part].astype(np.float64) - mean
            scatter += (centered * weight[part, None]).T @ centered
    covariance = scatter / total
    scale = np.sqrt(np.diagonal(covariance)) + 1e-6 if standardise else np.ones(width)
    covariance /= np.outer(scale, scale)
    covariance *= 1 - shrinkage
    covariance += shrinkage / (1 - shrinkage) * np.trace(covariance) / width * np.eye(width)
    return {'means': means, 'whitening': principal_whitening(covariance) / scale[:, None]}


def _mean(tokens: Tokens, weights: Array) -> Array:
    """Return the weighted mean of tokens (N, D), float64 (D,)."""
    sums = [weights[part] @ tokens[part].astype(np.float64) for part in _slices(len(tokens))]
    return np.asarray(np.sum(sums, axis=0) / weights.sum())


def _slices(count: int) -> list[slice]:
    return [slice(first, first + _AT_ONCE) for first in range(0, count, _AT_ONCE)]


def source_weights(sources: Sequence[str], starts: npt.NDArray[np.int64]) -> Array:
    """
    Return a weight a token, float64 (N,), so that the tokens of every source sum to one.

    sources: of every image. starts: see ClassTokens.
    """
    names, source = np.unique(np.asarray(sources), return_inverse=True)
    owner = np.repeat(source, np.diff(starts))
    counts = np.bincount(owner, minlength=len(names))
    return np.asarray(1.0 / counts[owner], np.float64)


def fit_gmm(classes: Sequence[Tokens], config: BaselineConfig) -> dict[str, Array]:
    """
    Fit a mixture on principal components z = (x - center) @ basis of features x.

    classes: features, float (N_c, D) each; at most config.samples of all are drawn. Return float64
    center (D,), basis (D, R), means (K, R), precisions (K, R, R), P P^T = inverse covariance, and
    log_weights (K,).
    """
    remedy = f'the baseline gmm needs scikit-learn: {install_command("train")}'
    sklearn = required('sklearn.mixture', remedy)
    starts = np.cumsum([0, *(len(one) for one in classes)])
    count = int(starts[-1])
    if count < 2 * config.components:
        raise DataError(f'{count} features are too few for {config.components} Gaussians')
    draw = np.sort(np.random.default_rng(config.seed).permutation(count)[: config.samples])
    own = np.split(draw, np.searchsorted(draw, starts[1:-1]))
    sample = np.concatenate(
        [
            one[chosen - start].astype(np.float64)
            for one, chosen, start in zip(classes, own, starts[:-1], strict=True)
        ]
    )
    center = sample.mean(0)
    _, vectors = np.linalg.eigh(np.cov(sample - center, rowvar=False))
    basis = vectors[:, ::-1][:, : config.reduced]
    mixture = sklearn.GaussianMixture(
        config.components, covariance_type='full', reg_covar=1e-4, random_state=config.seed
    ).fit((sample - center) @ basis)
    return {
        'center': center,
        'basis': basis,
        'means': mixture.means_,
        'precisions': mixture.precisions_cholesky_,
        'log_weights': np.log(mixture.weights_),
    }


@torch.inference_mode()
def logit_statistics(
    features: FeatureSet, logits: nn.Module, places: Sequence[int]
) -> dict[str, npt.NDArray[Any]]:
    """
    Return mean and deviation, float64 (P,), of the largest logit by the class that has it.

    Over the labelled pixels of the output grid; places: the classes that compete. A class that
    never wins takes the values of all pixels.
    """
    count, total, squares = (np.zeros(len(places)) for _ in range(3))
    for i in progress_bar(range(len(features.names)), 'largest logits'):
        tokens = tokens_of(features, logits.layers, [i])  # type: ignore[arg-type]
        found = logits(*tokens)[0][..., list(places)].max(-1)
        best, winner = found.values.double().numpy(), found.indices.numpy()
        known = labels_to_grid(np.asarray(features.labels[i]), best.shape) != 255
        for sums, power in ((count, 0), (total, 1), (squares, 2)):
            sums += np.bincount(winner[known], best[known] ** power, len(places))
    if not count.sum():
        raise DataError('no training pixel has a label: nothing to standardise by')
    pooled = [sums.sum() / count.sum() for sums in (total, squares)]
    seen = count > 1
    mean = np.where(seen, total / np.maximum(count, 1), pooled[0])
    square = np.where(seen, squares / np.maximum(count, 1), pooled[1])
    return {'mean': mean, 'deviation': np.sqrt(np.maximum(square - mean**2, 1e-12))}
