# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The losses of residual pattern learning (RPL, Liu et al. 2023), a mean over pixels each.

`frozen` are the logits of the closed-set network, `residual` those with the residual added.
Nothing of a loss reaches the frozen network: it is the teacher of known pixels. CoroCL, the
contrastive loss, tells outlier and known pixels apart in every context: of images with pasted
objects ("city"), and of everyday images with the same kinds of objects at home ("context").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ...augment.pasting import OUTLIER
from ...data.images import IGNORED
from .config import ENERGY_WEIGHT, SAMPLES, TEMPERATURE

LEAST_SHARE = 1e-7
"""Probabilities below it count as this much in the entropy."""
FEWEST_IMAGES = 2
Labels = npt.NDArray[np.uint8]
Places = tuple[npt.NDArray[np.int64], ...]


def energy(logits: torch.Tensor) -> torch.Tensor:
    """Return -ln sum_k exp F_k of float (..., K), higher = more anomalous (Liu et al. 2020)."""
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


@dataclass(frozen=True)
class Pools:
    """
    Embeddings float (S, F) of equally many cells a pool.

    The context pools are None where no everyday images are shown.
    """

    city_outlier: torch.Tensor
    city_known: torch.Tensor
    context_outlier: torch.Tensor | None = None
    context_known: torch.Tensor | None = None


def contrastive_loss(pools: Pools, temperature: float = TEMPERATURE) -> torch.Tensor:
    """
    Return CoroCL: every city cell against all cells; two labels, whatever the context.

    With s = cosine / temperature, a positive p (same label, not the anchor itself) costs
    -ln(e^{s_p} / (e^{s_p} + sum_n e^{s_n})) over the negatives n; the mean over positives, then
    over anchors. 0 where no anchor has a positive or a negative.
    """
    outliers, known = [pools.city_outlier], [pools.city_known]
    anchors = functional.normalize(torch.cat([*outliers, *known]), dim=1)
    # the anchors come first, so that an anchor's own place is its index
    others = [p for p in (pools.context_outlier, pools.context_known) if p is not None]
    contrast = torch.cat([anchors, *(functional.normalize(p, dim=1) for p in others)])
    count, own = len(pools.city_outlier), len(anchors)
    label = torch.zeros(len(contrast), dtype=torch.bool, device=anchors.device)
    label[:count] = True
    if pools.context_outlier is not None:
        label[own : own + len(pools.context_outlier)] = True
    same = label[:own, None] == label[None]
    positive = same.clone()
    positive.fill_diagonal_(False)
    usable = bool(positive.any(1).all() and (~same).any(1).all()) if own else False
    if not usable:
        return contrast.sum() * 0.0
    similar = anchors @ contrast.T / temperature
    negatives = similar.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    # -ln(a / (a + b)) = softplus(ln b - ln a): no exponential ever overflows
    terms = functional.softplus(negatives - similar) * positive
    return (terms.sum(1) / positive.sum(1)).mean()


def draw_pools(
    city: tuple[torch.Tensor, Labels],
    context: tuple[torch.Tensor, Labels] | None,
    random: np.random.Generator,
    most: int = SAMPLES,
) -> Pools | None:
    """
    Draw as many cells of every pool as the smallest holds, `most` at the most; None without any.

    city, context: embeddings float (B, H, W, F) and labels uint8 (B, H, W), OUTLIER, IGNORED or
    known. Only images with outliers count, and None comes back where fewer than two of the
    city's have some: a batch of one image tells its context, not its outliers.
    """
    found = [_places(city[1])]
    if len(np.unique(found[0][0][0])) < FEWEST_IMAGES:
        return None
    if context is not None:
        found.append(_places(context[1]))
    size = min(most, *(len(places[0]) for pair in found for places in pair))
    if not size:
        return None
    sources = [city[0], *([context[0]] if context is not None else [])]
    drawn = [
        _drawn(embeddings, places, size, random)
        for embeddings, pair in zip(sources, found, strict=True)
        for places in pair
    ]
    return Pools(*drawn)


def _drawn(
    embeddings: torch.Tensor, places: Places, size: int, random: np.random.Generator
) -> torch.Tensor:
    """Return (size, F) of cells drawn without replacement."""
    chosen = random.choice(len(places[0]), size, replace=False)
    return embeddings[tuple(torch.from_numpy(axis[chosen]) for axis in places)]


def _places(labels: Labels) -> tuple[Places, Places]:
    """Return the indices of outlier and of known cells, of the images that hold outliers."""
    outlier = labels == OUTLIER
    known = ~outlier & (labels != IGNORED) & outlier.any((1, 2), keepdims=True)
    return np.nonzero(outlier), np.nonzero(known)
