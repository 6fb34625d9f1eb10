# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The losses of residual pattern learning (RPL, Liu et al. 2023), a mean over pixels each.

`frozen` are the logits of the closed-set network, `residual` those with the residual added.
Nothing of a loss reaches the frozen network: it is the teacher of known pixels.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ...augment.pasting import OUTLIER
from ...data.images import IGNORED
from .config import ENERGY_WEIGHT

LEAST_SHARE = 1e-7
"""Probabilities below it count as this much in the entropy."""


def energy(logits: torch.Tensor) -> torch.Tensor:
    """Return E = -ln sum_k exp F_k of float (..., K): higher = stranger (Liu et al. 2020)."""
    return -logits.logsumexp(-1)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the Shannon entropy of softmax F in nats, of float (..., K)."""
    shares = logits.softmax(-1).clamp(min=LEAST_SHARE)
    return -(shares * shares.log()).sum(-1)


def pseudo_label_loss(residual: torch.Tensor, frozen: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of `residual` (N, K) with the frozen network's own decision."""
    return functional.cross_entropy(residual, frozen.argmax(-1))


def dissimilarity(residual: torch.Tensor, frozen: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of both entropies; (N, K) each."""
    return (entropy(residual) - entropy(frozen.detach())).square().mean()


def positive_energy(residual: torch.Tensor) -> torch.Tensor:
    """
    Return the mean of max(0, -E) of pasted pixels (N, K): their energy goes up to 0, not beyond.

    0 where there is none: the residual then gets no gradient from it, and no NaN.
    """
    if not len(residual):
        return residual.sum()
    return functional.relu(-energy(residual)).mean()


def rpl_loss(
    residual: torch.Tensor,
    frozen: torch.Tensor,
    labels: torch.Tensor,
    regularised: bool = True,
    energy_weight: float = ENERGY_WEIGHT,
) -> torch.Tensor:
    """
    Return cross-entropy + dis-similarity + weight x positive energy.

    residual, frozen: float (N, K). labels: int64 (N,): OUTLIER where an object is pasted, IGNORED
    where nothing counts; every other value means known, whatever its class.
    regularised: whether the dis-similarity counts. A batch without known or without pasted pixels
    leaves out what it cannot say.
    """
    pasted = labels == OUTLIER
    known = ~pasted & (labels != IGNORED)
    loss = energy_weight * positive_energy(residual[pasted])
    if known.any():
        loss = loss + pseudo_label_loss(residual[known], frozen[known])
        if regularised:
            loss = loss + dissimilarity(residual[known], frozen[known])
    return loss
