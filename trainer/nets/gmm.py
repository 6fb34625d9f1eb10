# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The generative classifier: a Gaussian mixture a class over normalised features (GMMSeg, UEM).

Its means and variances are not trained by gradient: features of each component are kept in a
queue, from which they are estimated; the assignment of pixels to components is balanced by
Sinkhorn's iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import check_choices

from ..data.images import IGNORED

COMBINATIONS = ('max', 'sum')
SINKHORN_EPSILON = 0.05
SINKHORN_ROUNDS = 3
CONTRAST_WEIGHT = 0.01


@dataclass(frozen=True)
class GmmSettings:
    """
    How the mixtures are kept (defaults: GMMSeg's as UEM uses them).

    components: per class. queue: features kept per component; enqueue: at most so many of a step.
    every: steps between updates. momentum: of the means. floor: added to the variances.
    combine: class score, 'max' over components (released code) or 'sum', the mixture (paper).
    class_norm: LayerNorm over the class axis of the scores. With two classes it makes their
        difference nearly a sign.
    """

    components: int = 5
    queue: int = 8000
    enqueue: int = 20
    every: int = 5
    momentum: float = 0.999
    floor: float = 0.01
    combine: str = 'max'
    class_norm: bool = True

    def __post_init__(self) -> None:
        check_choices('gmm', self, combine=COMBINATIONS)


class GmmHead(nn.Module):
    """
    Class scores of features by diagonal Gaussians.

    means, variances: float32 (classes, components, width). queue: the kept features of each
    component, unit vectors; filled, place: how many are there and where the next one goes.
    """

    means: torch.Tensor
    variances: torch.Tensor
    queue: torch.Tensor

    def __init__(self, width: int, classes: int, settings: GmmSettings) -> None:
        super().__init__()
        self.settings, self.classes, self.width = settings, classes, width
        shape = (classes, settings.components, width)
        self.norm = nn.LayerNorm(width)
        self.class_norm = nn.LayerNorm(classes) if settings.class_norm else nn.Identity()
        self.register_buffer('means', torch.nn.init.trunc_normal_(torch.empty(shape), std=0.02))
        self.register_buffer('variances', torch.ones(shape))
        content = functional.normalize(torch.randn(*shape[:2], settings.queue, width), dim=-1)
        self.register_buffer('queue', content, persistent=False)
        self.place = torch.zeros(shape[:2], dtype=torch.int64)
        self.steps = 0

    def features(self, values: torch.Tensor) -> torch.Tensor:
        """Return LayerNorm, then unit length, of (..., width)."""
        return functional.normalize(self.norm(values), dim=-1)

    def log_densities(self, unit: torch.Tensor) -> torch.Tensor:
        """
        Return ln N(x; mu, diag sigma^2) of unit features (N, width): (N, classes, components).

        Expanded into matrix products; means are of unit length.
        """
        means = functional.normalize(self.means, dim=-1).reshape(-1, self.width)
        inverse = 1.0 / self.variances.reshape(-1, self.width)
        squares = (unit * unit) @ inverse.T - 2 * unit @ (means * inverse).T
        squares = squares + (means * means * inverse).sum(1)
        constant = self.width * math.log(2 * math.pi) - torch.log(inverse).sum(1)
        return (-0.5 * (squares + constant)).reshape(-1, self.classes, self.settings.components)

    def scores(self, log_densities: torch.Tensor) -> torch.Tensor:
        """Return class scores (N, classes): max or mixture over components, then class_norm."""
        if self.settings.combine == 'max':
            combined = log_densities.amax(-1)
        else:
            combined = log_densities.logsumexp(-1) - math.log(self.settings.components)
        return self.class_norm(combined)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map features (..., width) to class scores (..., classes)."""
        flat = self.features(values.reshape(-1, self.width))
        return self.scores(self.log_densities(flat)).reshape(*values.shape[:-1], self.classes)

    def training_loss(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Return the contrast loss of one step, and take its features into the queues.

        values: (N, width); labels: int64 (N,), IGNORED left out. The loss: cross-entropy over
        all components of all classes with each pixel's assigned component as target.
        """
        known = labels != IGNORED
        if not known.any():
            return values.sum() * 0.0
        unit, labels = self.features(values[known]), labels[known]
        densities = self.log_densities(unit)
        with torch.no_grad():
            component = self._assign(densities.detach(), labels)
            right = self.scores(densities).argmax(1) == labels
            self._enqueue(unit.detach()[right], labels[right], component[right])
            self.steps += 1
            if self.steps % self.settings.every == 0:
                self._update(labels.unique())
        target = labels * self.settings.components + component
        return functional.cross_entropy(densities.flatten(1), target)

    def _assign(self, densities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each pixel's component of its own class, int64 (N,), balanced within a class."""
        component = torch.zeros_like(labels)
        for value in labels.unique():
            mine = labels == value
            own = densities[mine, value]
            component[mine] = sinkhorn(own / own.abs().max()).argmax(0)
        return component

    def _enqueue(self, unit: torch.Tensor, labels: torch.Tensor, component: torch.Tensor) -> None:
        """Put at most `enqueue` evenly spaced features of each component into its queue."""
        most, size = self.settings.enqueue, self.settings.queue
        for code in (labels * self.settings.components + component).unique():
            c, k = divmod(int(code), self.settings.components)
            members = torch.nonzero((labels == c) & (component == k)).flatten()
            if len(members) > most:
                members = members[torch.linspace(0, len(members) - 1, most).long()]
            places = (self.place[c, k] + torch.arange(len(members))) % size
            self.queue[c, k, places] = unit[members]
            self.place[c, k] = (self.place[c, k] + len(members)) % size

    def _update(self, classes: torch.Tensor) -> None:
        """Re-estimate means (with momentum) and variances of the classes that are present."""
        for c in classes.tolist():
            mean = self.queue[c].mean(1)
            direction = functional.normalize(mean, dim=-1)
            keep = self.settings.momentum
            self.means[c] = keep * self.means[c] + (1 - keep) * direction
            # the mean enters the density at unit length, so the variance is around that
            centre = functional.normalize(self.means[c], dim=-1)
            # E (x - c)^2 by moments: no second copy of a queue of 8000 features
            square = torch.linalg.vector_norm(self.queue[c], dim=1) ** 2 / self.queue.shape[2]
            spread = (square - 2 * centre * mean + centre * centre).clamp_min(0)
            self.variances[c] = spread + self.settings.floor


def sinkhorn(log_weights: torch.Tensor, rounds: int = SINKHORN_ROUNDS) -> torch.Tensor:
    """
    Return a transport plan, float (K, N), of log weights (N, K).

    Q = exp(log_weights / 0.05), normalised to 1, then `rounds` times rows to 1 / K and columns to
    1 / N (columns last); scaled so that each column sums to 1.
    """
    plan = torch.exp(log_weights.double().T / SINKHORN_EPSILON)
    components, pixels = plan.shape
    plan = plan / plan.sum()
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdim=True).clamp_min(1e-300) / components
        plan = plan / plan.sum(0, keepdim=True).clamp_min(1e-300) / pixels
    return plan * pixels
