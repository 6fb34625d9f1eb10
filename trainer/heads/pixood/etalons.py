# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The etalons of all classes while they are being found, and what is left of them at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ...feature_files import release
from ...nets.patches import ClassTokens
from .clustering import assign, kmeans

BETA_RANGE, BETA_LEAST, BETA_START = 100.0, 0.01, 10.01
_SUPPORT_RATE = 0.744  # the paper's 0.001 a batch at Cityscapes' 744 batches an epoch
_SAMPLE = 10_000
_MOST = 1 << 19
_AT_ONCE = 1 << 16
_KMEANS_ITERATIONS = 25


@dataclass(frozen=True)
class Condensed:
    """
    What condensation leaves.

    etalons: per class float32 (K_c, D) in the tokens' own space; K_c = 0 without patches.
    won: per class int64 (K_c,), patches whose nearest etalon it is.
    losses: mean loss of every epoch (empty for methods without one).
    """

    etalons: tuple[npt.NDArray[np.float32], ...]
    won: tuple[npt.NDArray[np.int64], ...]
    losses: tuple[float, ...] = ()


@dataclass
class Standardisation:
    """Per-dimension median and standard deviation: distances count every dimension alike."""

    median: torch.Tensor
    deviation: torch.Tensor

    def to(self, tokens: npt.NDArray[np.float16]) -> torch.Tensor:
        """Return standardised float32 (N, D) of float16 (N, D)."""
        values = torch.from_numpy(np.ascontiguousarray(tokens)).float()
        return values.sub_(self.median).div_(self.deviation)

    def back(self, values: torch.Tensor) -> npt.NDArray[np.float32]:
        """Return float32 (N, D) in the tokens' own space of standardised ones."""
        return (values * self.deviation + self.median).numpy()


@dataclass
class EtalonBank:
    """
    The etalons of all classes in one tensor, their scales and their running support.

    classes: the tokens of every class. sizes: K_c, the etalons of every class, 0 without tokens.
    images: images a batch. seed: of the first etalons and of everything drawn later.
    etalons: float32 (sum K_c, D), standardised; theta, support: float32 (sum K_c,), where
        beta = 100 sigmoid(theta / 2) + 0.01; slices: the place of every class in them.
    """

    classes: Sequence[ClassTokens]
    sizes: Sequence[int]
    images: int
    seed: int
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image_count = len(self.classes[0].starts) - 1
        self.batches = math.ceil(self.image_count / self.images)
        self.present = [c for c, tokens in enumerate(self.classes) if len(tokens)]
        sizes = self.sizes
        ends = np.cumsum(sizes)
        self.slices = [slice(int(e - k), int(e)) for e, k in zip(ends, sizes, strict=True)]
        samples = _initial_samples(self)
        self.standard = _standard(samples)
        dim = self.classes[0].tokens.shape[1]
        self.distance_scale = 100 / math.sqrt(dim)
        self.etalons = torch.cat(
            [
                _first_etalons(self.standard.to(samples[c]), sizes[c], self.generator(c, 1))
                for c in self.present
            ]
        )
        start = math.log(_share(BETA_START) / (1 - _share(BETA_START)))
        self.theta = torch.full((int(ends[-1]),), 2 * start)
        self.support = torch.ones(int(ends[-1]))
        self.batch_sizes = torch.ones(len(sizes))
        self.seen = torch.zeros(len(sizes), dtype=torch.int64)

    def generator(self, *of: int) -> torch.Generator:
        """Return the generator of one purpose, so that a resumed run draws the same."""
        seed = np.random.SeedSequence([self.seed, *of]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))

    def class_patches(self, c: int) -> torch.Tensor:
        """Return the standardised patches of class c, float32 (N, D)."""
        return self.standard.to(self.classes[c].tokens)

    def scales(self) -> torch.Tensor:
        """Return beta, float32 (sum K_c,), in (0.01, 100.01)."""
        return BETA_RANGE * torch.sigmoid(self.theta / 2) + BETA_LEAST

    def threshold(self, c: int) -> float:
        """Return the support below which an etalon of class c counts as useless."""
        part = self.slices[c]
        return 0.5 * float(self.batch_sizes[c]) / (part.stop - part.start)

    def valid(self, c: int) -> torch.Tensor:
        """Return bool (K_c,): the etalons of class c that take part."""
        return self.support[self.slices[c]] > self.threshold(c)

    def count(self, c: int, support: torch.Tensor, size: int) -> None:
        """Move the running averages of class c by one batch (bias-corrected rate)."""
        self.seen[c] += 1
        rate = min(_SUPPORT_RATE / self.batches, 0.5)
        rate = rate / (1 - (1 - rate) ** int(self.seen[c]))
        self.support[self.slices[c]].lerp_(support, rate)
        self.batch_sizes[c] += rate * (size - self.batch_sizes[c])

    def finish(self) -> Condensed:
        """Keep the valid etalons that win a patch, in the tokens' own space."""
        etalons, won = [], []
        for c in range(len(self.classes)):
            centres = self.etalons[self.slices[c]]
            counts = torch.zeros(len(centres), dtype=torch.int64)
            if len(centres):
                counts = self._won(c, centres)
            etalons.append(self.standard.back(centres[counts > 0]))
            won.append(counts[counts > 0].numpy())
        return Condensed(tuple(etalons), tuple(won), tuple(self.losses))

    def _won(self, c: int, centres: torch.Tensor) -> torch.Tensor:
        """Return how many patches of class c each of its etalons wins, int64 (K_c,)."""
        tokens, counts = self.classes[c].tokens, torch.zeros(len(centres), dtype=torch.int64)
        for first in range(0, len(tokens), _AT_ONCE):  # float32 needs room
            patches = self.standard.to(tokens[first : first + _AT_ONCE])
            release(tokens)
            winners = assign(patches, centres, self.valid(c))
            counts += torch.bincount(winners, minlength=len(centres))
        return counts

    def lloyd(self) -> Condensed:
        """Hard K-means of every class from the same start as the soft methods."""
        etalons, won = [], []
        for c in range(len(self.classes)):
            centres = self.etalons[self.slices[c]]
            patches = self.class_patches(c)
            if len(centres):
                centres = kmeans(patches, centres, _KMEANS_ITERATIONS)
            winners = assign(patches, centres)
            etalons.append(self.standard.back(centres))
            won.append(torch.bincount(winners, minlength=len(centres)).numpy())
        return Condensed(tuple(etalons), tuple(won))


def _initial_samples(bank: EtalonBank) -> list[npt.NDArray[np.float16]]:
    """
    Return patches of every class: images in random order until all have over 10 000.

    A rare class may ask for all images. Where these hold more than half a million patches, too
    many for memory, a class with more than its share takes fewer images than the rare one.
    """
    order = torch.randperm(bank.image_count, generator=bank.generator(0)).tolist()
    counts = np.stack([np.diff(tokens.starts)[order].cumsum() for tokens in bank.classes])
    enough = (counts > _SAMPLE).all(axis=0)
    used = int(enough.argmax()) + 1 if enough.any() else bank.image_count
    ends = np.full(len(counts), used)
    if counts[:, used - 1].sum() > _MOST:
        full = counts > max(_SAMPLE, _MOST // len(counts))
        ends = np.where(full.any(1), np.minimum(full.argmax(1) + 1, used), used)
    pairs = zip(bank.classes, ends.tolist(), strict=True)
    return [tokens.of_images(order[:end]) for tokens, end in pairs]


def _standard(samples: Sequence[npt.NDArray[np.float16]]) -> Standardisation:
    values = np.concatenate(samples)
    median = np.empty(values.shape[1], np.float32)
    deviation = np.ones(values.shape[1], np.float32)
    for first in range(0, values.shape[1], 32):  # some columns at once: float32 needs room
        part = values[:, first : first + 32].astype(np.float32)
        median[first : first + 32] = np.median(part, axis=0)
        if len(part) > 1:
            deviation[first : first + 32] = part.std(axis=0, ddof=1)
    # A dimension that never varies carries nothing; dividing by 0 would make it everything.
    deviation[deviation == 0] = 1
    return Standardisation(torch.from_numpy(median), torch.from_numpy(deviation))


def _first_etalons(patches: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return `count` random patches; where there are too few, repeated ones with noise."""
    if count < len(patches) or count == 1:
        return patches[torch.randperm(len(patches), generator=generator)[:count]].clone()
    chosen = torch.randint(len(patches), (count,), generator=generator)
    noise = torch.rand((count, patches.shape[1]), generator=generator) - 0.5
    return patches[chosen] + 0.1 * noise


def _share(beta: float) -> float:
    return (beta - BETA_LEAST) / BETA_RANGE
