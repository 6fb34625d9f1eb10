# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Hard K-means and the gradients of the soft losses, for one class at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ood_perception.errors import ConfigError

FAR = 1e12
_NEAREST = 1e-4


class SoftLoss(NamedTuple):
    """
    A class's loss on a batch, its derivatives and its support.

    loss: float32 (), mean over the patches.
    etalons: float32 (K, D), d loss / d c. scales: float32 (K,), d loss / d beta.
    support: float32 (K,), sum over the patches of w.
    """

    loss: torch.Tensor
    etalons: torch.Tensor
    scales: torch.Tensor
    support: torch.Tensor


def distances(
    patches: torch.Tensor, etalons: torch.Tensor, scale: float, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Return scale * ||x_i - c_k||, float32 (N, K); 1e12 for etalons that are not valid.

    patches: float32 (N, D). etalons: float32 (K, D). valid: bool (K,).
    """
    offsets = (etalons * etalons).sum(1)
    if valid is not None:
        offsets = torch.where(valid, offsets, (FAR / scale) ** 2)
    squared = torch.addmm(offsets, patches, etalons.T, alpha=-2)
    squared += (patches * patches).sum(1, keepdim=True)
    return squared.clamp_(min=_NEAREST).sqrt_().mul_(scale)


def soft_loss(
    patches: torch.Tensor,
    etalons: torch.Tensor,
    scales: torch.Tensor,
    *,
    inverse_temperature: float,
    distance_scale: float,
    valid: torch.Tensor,
    method: str = 'condensation',
) -> SoftLoss:
    """
    Return the loss of PixOOD's Eq. 8-10 and its exact gradient, in two matrix products.

    With w = softmax(-T d) the loss is mean_i sum_k w_ik u_ik, where u = d / beta + ln beta for
    condensation, d^2 for soft K-means, d for soft K-medians. The gradient flows through w too:
    d loss_i / d d_ik = w_ik (u'_ik - T (u_ik - loss_i)), and d d / d c = s^2 (c - x) / d.

    patches: float32 (N, D), N >= 1. etalons: float32 (K, D). scales: float32 (K,) = beta > 0.
    valid: bool (K,), at least one true; the others get w = 0 and no gradient.
    """
    d = distances(patches, etalons, distance_scale, valid)
    w = torch.softmax(d * -inverse_temperature, dim=1)
    if method == 'condensation':
        u = torch.addcmul(scales.log(), d, 1 / scales)
        rate: torch.Tensor = 1 / scales
    else:
        u, rate = (d * d, 2 * d) if method == 'soft_kmeans' else (d, torch.ones_like(scales))
    each = torch.einsum('ik,ik->i', w, u)
    slope = (u - each[:, None]).mul_(-inverse_temperature).add_(rate).mul_(w).div_(d)
    slope *= distance_scale**2 / len(patches)
    gradient = torch.addmm(etalons * slope.sum(0)[:, None], slope.T, patches, alpha=-1)
    support = w.sum(0)
    beta = torch.zeros_like(scales)
    if method == 'condensation':
        beta = (support / scales - w.mul_(d).sum(0) / scales**2) / len(patches)
    return SoftLoss(each.mean(), gradient, beta, support)


def assign(
    patches: torch.Tensor, etalons: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Return int64 (N,): the nearest valid etalon of every patch."""
    chosen = [
        distances(part, etalons, 1.0, valid).argmin(1) for part in torch.split(patches, 8192)
    ]
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)


def kmeans(patches: torch.Tensor, etalons: torch.Tensor, iterations: int) -> torch.Tensor:
    """
    Return Lloyd's centres, float32 (K', D), K' <= K: those that win no patch are dropped.

    patches: float32 (N, D). etalons: float32 (K, D), the start. Stops early when nothing moves.
    """
    if iterations < 1:
        raise ConfigError(f'K-means needs at least one iteration, not {iterations}')
    centres, before = etalons.clone(), None
    for _ in range(iterations):
        winners = assign(patches, centres)
        if before is not None and torch.equal(winners, before):
            break
        before = winners
        counts = torch.bincount(winners, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, winners, patches)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
    return centres[torch.bincount(assign(patches, centres), minlength=len(centres)) > 0]
