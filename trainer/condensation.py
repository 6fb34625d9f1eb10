# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Data condensation (PixOOD, section III-C): a few etalons that stand for all patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ood_perception.errors import ConfigError, DataError

from .checkpoint import load_checkpoint, save_checkpoint
from .clustering import METHODS as SOFT_METHODS
from .clustering import assign, kmeans, soft_loss
from .patches import ClassTokens

LOG = logging.getLogger(__name__)
METHODS = (*SOFT_METHODS, 'kmeans', 'single_mean')
_BETA_RANGE, _BETA_LEAST, _BETA_START = 100.0, 0.01, 10.01
_SUPPORT_RATE = 0.744  # the paper's 0.001 a batch at Cityscapes' 744 batches an epoch
_SAMPLE = 10_000
_KMEANS_ITERATIONS = 25


@dataclass(frozen=True)
class CondensationSettings:
    """
    How etalons are found.

    method: 'condensation' (Eq. 8-10), its ablations 'soft_kmeans' and 'soft_kmedians' (same
        weights, loss w d^2 and w d), 'kmeans' (Lloyd), 'single_mean' (one etalon, the mean).
    etalons: K, the budget of each class; at most its patches / patches_per_etalon.
    epochs: length of the schedule: the first epoch warms up, the last tenth cools down, between
        them unsupported etalons are moved (when reinitialise).
    pictures: pictures a batch. learning_rate: AdamW's, cosine to 0 over the epochs.
    matmul: 'f32', or 'bf16' for products rounded to bfloat16 (sums stay float32).
    """

    method: str = 'condensation'
    etalons: int = 1000
    patches_per_etalon: int = 20
    epochs: int = 100
    pictures: int = 4
    learning_rate: float = 0.1
    reinitialise: bool = True
    matmul: str = 'f32'
    seed: int = 42

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f'condensation method {self.method!r} is not one of {METHODS}')
        if self.matmul not in _PRECISIONS:
            raise ConfigError(f'matmul {self.matmul!r} is not one of {tuple(_PRECISIONS)}')
        for name in ('etalons', 'patches_per_etalon', 'epochs', 'pictures'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name} is {getattr(self, name)}: give 1 or more')

    def budget(self, patches: int) -> int:
        """Return K for a class with this many patches: 0 without patches, else 1 or more."""
        if patches == 0 or self.method == 'single_mean':
            return min(patches, 1)
        return max(1, min(self.etalons, patches // self.patches_per_etalon))

    def inverse_temperature(self, epoch: int) -> float:
        """Return T = 1 / tau of an epoch: from 0.5 to 2 along a half cosine."""
        return 0.5 + 0.75 * (1 - math.cos(math.pi * epoch / self.epochs))

    def moves_etalons(self, epoch: int) -> bool:
        """Return whether unsupported etalons are re-initialised in this epoch."""
        return self.reinitialise and 1 <= epoch < 0.9 * self.epochs


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


def condense(
    classes: Sequence[ClassTokens],
    settings: CondensationSettings,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    key: str = '',
    progress: bool = False,
) -> Condensed:
    """
    Find the etalons of all classes in one run; the same seed gives the same etalons.

    classes: the tokens of every class over the same list of pictures; may be empty for some.
    checkpoint: file that a killed run goes on from, when settings and key (of the features) are
        the same; removed by nobody. Raises DataError when no class has a patch.
    """
    if not any(len(tokens) for tokens in classes):
        raise DataError('no class has a patch to condense: check labels, class map and purity')
    with _precision(settings.matmul):
        run = _Run(classes, settings)
        if settings.method == 'single_mean':
            run.etalons.copy_(torch.cat([run.class_patches(c).mean(0)[None] for c in run.present]))
        elif settings.method == 'kmeans':
            return run.lloyd()
        else:
            _optimise(run, checkpoint, checkpoint_every, key, progress)
        return run.finish()


@dataclass
class _Standard:
    """Per-dimension median and standard deviation: distances count every dimension alike."""

    median: torch.Tensor
    deviation: torch.Tensor

    def to(self, tokens: npt.NDArray[np.float16]) -> torch.Tensor:
        values = torch.from_numpy(np.ascontiguousarray(tokens)).float()
        return values.sub_(self.median).div_(self.deviation)

    def back(self, values: torch.Tensor) -> npt.NDArray[np.float32]:
        return (values * self.deviation + self.median).numpy()


@dataclass
class _Run:
    """The etalons of all classes in one tensor, their scales and their running support."""

    classes: Sequence[ClassTokens]
    settings: CondensationSettings
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pictures = len(self.classes[0].starts) - 1
        self.batches = math.ceil(self.pictures / self.settings.pictures)
        self.present = [c for c, tokens in enumerate(self.classes) if len(tokens)]
        sizes = [self.settings.budget(len(tokens)) for tokens in self.classes]
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
        start = math.log(_share(_BETA_START) / (1 - _share(_BETA_START)))
        self.theta = torch.full((int(ends[-1]),), 2 * start)
        self.support = torch.ones(int(ends[-1]))
        self.batch_sizes = torch.ones(len(sizes))
        self.seen = torch.zeros(len(sizes), dtype=torch.int64)

    def generator(self, *of: int) -> torch.Generator:
        """Return the generator of one purpose, so that a resumed run draws the same."""
        seed = np.random.SeedSequence([self.settings.seed, *of]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))

    def class_patches(self, c: int) -> torch.Tensor:
        return self.standard.to(self.classes[c].tokens)

    def scales(self) -> torch.Tensor:
        return _BETA_RANGE * torch.sigmoid(self.theta / 2) + _BETA_LEAST

    def threshold(self, c: int) -> float:
        """Return the support below which an etalon of class c counts as useless."""
        part = self.slices[c]
        return 0.5 * float(self.batch_sizes[c]) / (part.stop - part.start)

    def valid(self, c: int) -> torch.Tensor:
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
                winners = assign(self.class_patches(c), centres, self.valid(c))
                counts = torch.bincount(winners, minlength=len(centres))
            etalons.append(self.standard.back(centres[counts > 0]))
            won.append(counts[counts > 0].numpy())
        return Condensed(tuple(etalons), tuple(won), tuple(self.losses))

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


def _optimise(run: _Run, checkpoint: Path | None, every: int, key: str, progress: bool) -> None:
    settings = run.settings
    optimiser = torch.optim.AdamW(
        [run.etalons, run.theta], lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    key = f'{key} {asdict(settings)} {[len(c) for c in run.classes]}'
    first = _resume(run, optimiser, checkpoint, key)
    for epoch in tqdm(
        range(first, settings.epochs),
        initial=first,
        total=settings.epochs,
        desc='condensation',
        unit='epoch',
        disable=not progress,
    ):
        for group in optimiser.param_groups:
            group['lr'] = settings.learning_rate * _cosine(epoch / settings.epochs)
        run.losses.append(_epoch(run, optimiser, epoch))
        if checkpoint is not None and ((epoch + 1) % every == 0 or epoch + 1 == settings.epochs):
            save_checkpoint(checkpoint, _state(run, optimiser), key)
    LOG.info('condensation: loss %.4f -> %.4f', run.losses[0], run.losses[-1])


def _epoch(run: _Run, optimiser: torch.optim.Optimizer, epoch: int) -> float:
    """Go over all pictures once in random order; return the mean loss of the batches."""
    settings = run.settings
    generator = run.generator(epoch, 2)
    order = torch.randperm(run.pictures, generator=generator).tolist()
    half = max(run.batches // 2, 1)
    total = 0.0
    for number in range(run.batches):
        chosen = order[number * settings.pictures : (number + 1) * settings.pictures]
        batch = {}
        for c in run.present:
            patches = run.classes[c].of_pictures(chosen)
            if len(patches):
                batch[c] = run.standard.to(patches)
        total += _step(run, optimiser, batch, settings.inverse_temperature(epoch))
        if settings.moves_etalons(epoch) and number % half == 0:
            for c, patches in batch.items():
                _reinitialise(run, c, patches, generator)
    return total / run.batches


def _step(
    run: _Run,
    optimiser: torch.optim.Optimizer,
    batch: dict[int, torch.Tensor],
    inverse_temperature: float,
) -> float:
    """Descend the sum of the class losses of one batch; return it."""
    run.etalons.grad = torch.zeros_like(run.etalons)
    run.theta.grad = torch.zeros_like(run.theta)
    scales, total = run.scales(), 0.0
    for c, patches in batch.items():
        part = run.slices[c]
        result = soft_loss(
            patches,
            run.etalons[part],
            scales[part],
            inverse_temperature=inverse_temperature,
            distance_scale=run.distance_scale,
            valid=run.valid(c),
            method=run.settings.method,
        )
        run.etalons.grad[part] = result.etalons
        run.theta.grad[part] = result.scales
        run.count(c, result.support, len(patches))
        total += float(result.loss)
    share = (scales - _BETA_LEAST) / _BETA_RANGE
    run.theta.grad *= _BETA_RANGE / 2 * share * (1 - share)
    optimiser.step()
    return total


def _reinitialise(run: _Run, c: int, patches: torch.Tensor, generator: torch.Generator) -> None:
    """Move the unsupported etalons of a class to patches of the batch, barely supported."""
    part = run.slices[c]
    useless = run.support[part] < run.threshold(c)
    count = int(useless.sum())
    if count:
        chosen = torch.randint(len(patches), (count,), generator=generator)
        noise = torch.rand((count, patches.shape[1]), generator=generator)
        moved = patches[chosen] + noise * (1e-6 / math.sqrt(patches.shape[1]))
        run.etalons[part][useless] = moved
        run.support[part][useless] = 1.1 * run.threshold(c)


def _initial_samples(run: _Run) -> list[npt.NDArray[np.float16]]:
    """Return patches of every class: pictures in random order until all have over 10 000."""
    order = torch.randperm(run.pictures, generator=run.generator(0)).tolist()
    counts = np.stack([np.diff(tokens.starts)[order].cumsum() for tokens in run.classes])
    enough = (counts > _SAMPLE).all(axis=0)
    used = int(enough.argmax()) + 1 if enough.any() else run.pictures
    return [tokens.of_pictures(order[:used]) for tokens in run.classes]


def _standard(samples: Sequence[npt.NDArray[np.float16]]) -> _Standard:
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
    return _Standard(torch.from_numpy(median), torch.from_numpy(deviation))


def _first_etalons(patches: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return `count` random patches; where there are too few, repeated ones with noise."""
    if count < len(patches) or count == 1:
        return patches[torch.randperm(len(patches), generator=generator)[:count]].clone()
    chosen = torch.randint(len(patches), (count,), generator=generator)
    noise = torch.rand((count, patches.shape[1]), generator=generator) - 0.5
    return patches[chosen] + 0.1 * noise


def _state(run: _Run, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = {
        'etalons': run.etalons,
        'theta': run.theta,
        'support': run.support,
        'batch_sizes': run.batch_sizes,
        'seen': run.seen,
        'losses': torch.tensor(run.losses, dtype=torch.float64),
    }
    for name, parameter in (('etalons', run.etalons), ('theta', run.theta)):
        for moment, value in optimiser.state[parameter].items():
            state[f'{name}.{moment}'] = value
    return state


def _resume(run: _Run, optimiser: torch.optim.Optimizer, checkpoint: Path | None, key: str) -> int:
    """Take up a checkpoint of the same run; return the first epoch to do."""
    state = load_checkpoint(checkpoint, key) if checkpoint is not None else None
    if state is None:
        return 0
    for name in ('etalons', 'theta', 'support', 'batch_sizes', 'seen'):
        getattr(run, name).copy_(state[name])
    for name, parameter in (('etalons', run.etalons), ('theta', run.theta)):
        optimiser.state[parameter] = {
            moment: state[f'{name}.{moment}'] for moment in ('step', 'exp_avg', 'exp_avg_sq')
        }
    run.losses = state['losses'].tolist()
    LOG.info('condensation goes on after epoch %d of %s', len(run.losses), checkpoint)
    return len(run.losses)


def _share(beta: float) -> float:
    return (beta - _BETA_LEAST) / _BETA_RANGE


def _cosine(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


_PRECISIONS = {'f32': 'highest', 'bf16': 'medium'}


@contextmanager
def _precision(matmul: str) -> Iterator[None]:
    """Set the precision of float32 matrix products, and put back what was there."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_PRECISIONS[matmul])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
