# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Data condensation (PixOOD, section III-C): a few etalons that stand for all patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ood_perception.errors import DataError

from ...artifacts import Artifact
from ...distributed import rank, sum_over_all, world
from ...nets.patches import ClassTokens
from ...progress import progress_bar
from ...training.loop import cosine
from .clustering import soft_loss
from .config import CondensationSettings
from .etalons import BETA_LEAST, BETA_RANGE, Condensed, EtalonBank

LOG = logging.getLogger(__name__)
_PRECISIONS = {'f32': 'highest', 'bf16': 'medium'}


def condense(
    classes: Sequence[ClassTokens],
    settings: CondensationSettings,
    artifact: Artifact | None = None,
    checkpoint_every: int = 10,
) -> Condensed:
    """
    Find the etalons of all classes in one run; the same seed gives the same etalons.

    classes: the tokens of every class over the same list of images; may be empty for some.
    artifact: what is being made; a killed run goes on from its checkpoint. Raises DataError when
    no class has a patch.
    """
    if not any(len(tokens) for tokens in classes):
        raise DataError(
            'no class has a patch to condense: above stands what was found and what a class '
            'takes; add images, enlarge view, lower patches.fewest_images, check labels or purity'
        )
    with _precision(settings.matmul):
        bank = starting_bank(classes, settings)
        if settings.method == 'single_mean':
            means = [bank.class_patches(c).mean(0) for c in bank.present]
            bank.etalons.copy_(torch.stack(means))
        elif settings.method == 'kmeans':
            return bank.lloyd()
        else:
            _optimise(bank, settings, artifact, checkpoint_every)
        return bank.finish()


def starting_bank(classes: Sequence[ClassTokens], settings: CondensationSettings) -> EtalonBank:
    """Return the etalons to start from."""
    sizes = [settings.budget(len(tokens)) for tokens in classes]
    return EtalonBank(classes, sizes, settings.images, settings.seed)


def _optimise(
    bank: EtalonBank,
    settings: CondensationSettings,
    artifact: Artifact | None,
    every: int,
) -> None:
    optimiser = torch.optim.AdamW(
        [bank.etalons, bank.theta], lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    first = _resume(bank, optimiser, artifact.load_state() if artifact else None)
    epochs = range(first, settings.epochs)
    done = {'initial': first, 'total': settings.epochs}
    for epoch in progress_bar(epochs, 'condensation', 'epoch', **done):
        for group in optimiser.param_groups:
            group['lr'] = settings.learning_rate * cosine(epoch / settings.epochs, 1)
        bank.losses.append(_epoch(bank, settings, optimiser, epoch))
        if artifact and ((epoch + 1) % every == 0 or epoch + 1 == settings.epochs):
            artifact.save_state(_state(bank, optimiser))
    LOG.info('condensation: loss %.4f -> %.4f', bank.losses[0], bank.losses[-1])


def _epoch(
    bank: EtalonBank, settings: CondensationSettings, optimiser: torch.optim.Optimizer, epoch: int
) -> float:
    """Go over all images once in random order; return the mean loss of the batches."""
    generator = bank.generator(epoch, 2)
    order = torch.randperm(bank.image_count, generator=generator).tolist()
    half = max(bank.batches // 2, 1)
    total = 0.0
    for number in range(bank.batches):
        chosen = order[number * settings.images : (number + 1) * settings.images]
        batch = {}
        for c in bank.present:
            patches = bank.classes[c].of_images(chosen)
            if len(patches):
                batch[c] = bank.standard.to(patches)
        total += _step(bank, settings, optimiser, batch, settings.inverse_temperature(epoch))
        if settings.moves_etalons(epoch) and number % half == 0:
            for c, patches in batch.items():
                _reinitialise(bank, c, patches, generator)
    return total / bank.batches


def _step(
    bank: EtalonBank,
    settings: CondensationSettings,
    optimiser: torch.optim.Optimizer,
    batch: dict[int, torch.Tensor],
    inverse_temperature: float,
) -> float:
    """
    Descend the sum of the class losses of one batch; return it.

    Several processes take every n-th patch each: means, gradients and supports are summed.
    """
    bank.etalons.grad = torch.zeros_like(bank.etalons)
    bank.theta.grad = torch.zeros_like(bank.theta)
    support, total = torch.zeros_like(bank.support), torch.zeros(1, dtype=torch.float64)
    scales = bank.scales()
    for c, patches in batch.items():
        part, mine = bank.slices[c], patches[rank() :: world()]
        if not len(mine):
            continue
        result = soft_loss(
            mine,
            bank.etalons[part],
            scales[part],
            inverse_temperature=inverse_temperature,
            distance_scale=bank.distance_scale,
            valid=bank.valid(c),
            method=settings.method,
        )
        weight = len(mine) / len(patches)
        bank.etalons.grad[part] = result.etalons * weight
        bank.theta.grad[part] = result.scales * weight
        support[part] = result.support
        total += float(result.loss) * weight
    sum_over_all([bank.etalons.grad, bank.theta.grad, support, total])
    for c, patches in batch.items():
        bank.count(c, support[bank.slices[c]], len(patches))
    share = (scales - BETA_LEAST) / BETA_RANGE
    bank.theta.grad *= BETA_RANGE / 2 * share * (1 - share)
    optimiser.step()
    return float(total)


def _reinitialise(
    bank: EtalonBank, c: int, patches: torch.Tensor, generator: torch.Generator
) -> None:
    """Move the unsupported etalons of a class to patches of the batch, barely supported."""
    part = bank.slices[c]
    useless = bank.support[part] < bank.threshold(c)
    count = int(useless.sum())
    if count:
        chosen = torch.randint(len(patches), (count,), generator=generator)
        noise = torch.rand((count, patches.shape[1]), generator=generator)
        moved = patches[chosen] + noise * (1e-6 / math.sqrt(patches.shape[1]))
        bank.etalons[part][useless] = moved
        bank.support[part][useless] = 1.1 * bank.threshold(c)


def _state(bank: EtalonBank, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = {
        'etalons': bank.etalons,
        'theta': bank.theta,
        'support': bank.support,
        'batch_sizes': bank.batch_sizes,
        'seen': bank.seen,
        'losses': torch.tensor(bank.losses, dtype=torch.float64),
    }
    for name, parameter in (('etalons', bank.etalons), ('theta', bank.theta)):
        for moment, value in optimiser.state[parameter].items():
            state[f'{name}.{moment}'] = value
    return state


def _resume(
    bank: EtalonBank, optimiser: torch.optim.Optimizer, state: dict[str, torch.Tensor] | None
) -> int:
    """Take up what _state gave, if anything; return the first epoch to do."""
    if state is None:
        return 0
    for name in ('etalons', 'theta', 'support', 'batch_sizes', 'seen'):
        getattr(bank, name).copy_(state[name])
    for name, parameter in (('etalons', bank.etalons), ('theta', bank.theta)):
        optimiser.state[parameter] = {
            moment: state[f'{name}.{moment}'] for moment in ('step', 'exp_avg', 'exp_avg_sq')
        }
    bank.losses = state['losses'].tolist()
    LOG.info('condensation goes on after epoch %d', len(bank.losses))
    return len(bank.losses)


@contextmanager
def _precision(matmul: str) -> Iterator[None]:
    """Set the precision of float32 matrix products, and put back what was there."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_PRECISIONS[matmul])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
