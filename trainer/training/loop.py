# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A resumable training run that looks at a selection and keeps the best state of its model."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..artifacts import Artifact, part_of
from ..data.images import IGNORED
from ..distributed import sum_over_all, take_first, world
from ..nets.gmm import GmmHead
from ..nets.shared_norm import share_statistics
from ..progress import progress_bar

LOG = logging.getLogger(__name__)
CONTIGUOUS = torch.contiguous_format


@dataclass(frozen=True)
class Schedule:
    """
    What a run reads of its settings; a head's section of the recipe has the same fields.

    steps: optimiser steps, `warmup` of them with a rising rate; batch: images in each.
    pixel_step: every pixel_step-th row and column counts in the loss, from a drawn place on.
    select_every: steps between two looks at the selection.
    """

    steps: int
    batch: int
    learning_rate: float
    pixel_step: int
    select_every: int
    seed: int
    warmup: int = 0


@dataclass(frozen=True)
class Trained:
    """
    What came out of a run.

    model: in its best state, on the CPU. best_step: of that state. history: (step, mean loss since
    the last look, figure of the selection) of each look; the larger figure is the better.
    """

    model: Any
    best_step: int
    history: tuple[tuple[int, float, float], ...]

    def report(self) -> dict[str, Any]:
        """Return what is recorded of the run, JSON values."""
        return {'best_step': self.best_step, 'history': self.history}


class TrainingRun(ABC):
    """
    One run of an optimiser on a model; what a step sees depends on the seed and the step alone.

    name: of what is trained. together: several processes take a part of each batch; their loss is
    that of all of it, so that they give the state that one gives, up to rounding.
    images: number of images to draw from. schedule: what has the fields of Schedule. A group of
    the optimiser has the schedule's rate, or its own 'rate', times its 'times'.
    """

    name: ClassVar[str]
    together: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        images: int,
        schedule: Any,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.trained, self.images, self.schedule, self.step = model, images, schedule, 0
        self.optimizer = optimizer
        self.history: list[tuple[int, float, float]] = []
        self.best: dict[str, torch.Tensor] = {}

    @abstractmethod
    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the loss of images, at every pixel_step-th pixel from (row, column) on."""

    def look(self) -> float | None:
        """Return the selection's figure of the model as it is; None where nothing selects."""
        return None

    def rate_factor(self) -> float:
        """Return the share of the learning rate at the step."""
        return rate_factor(self.step, self.schedule.steps, self.schedule.warmup)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Let products be in bfloat16 where the matmul of a head's schedule says so."""
        bf16 = self.schedule.matmul == 'bf16'
        return torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def draw(self) -> tuple[list[int], int, int]:
        """Return the images of the step, and the row and column of its first pixel."""
        plan = self.schedule
        random = np.random.default_rng((plan.seed, self.step))
        drawn = random.choice(self.images, min(plan.batch, self.images), replace=False)
        row, column = (int(v) for v in random.integers(plan.pixel_step, size=2))
        return sorted(int(i) for i in drawn), row, column

    def fit(self, artifact: Artifact | None = None) -> Trained:
        """
        Train to the end and load the best state; where nothing selects, that is the last one, or
        what the run itself keeps in `best`.

        artifact: what is being made; the run goes on from its checkpoint and writes one at every
        look. The same seed gives the same model on one machine, resumed or not.
        """
        self.restore(artifact.load_state() if artifact else None)
        if self.together and world() > 1:
            share_statistics(self.trained)
            take_first([*self.trained.parameters(), *self.trained.buffers()])
        steps, losses = self.schedule.steps, list[float]()
        bar = progress_bar(None, self.name, 'step', total=steps, initial=self.step)
        while self.step < steps:
            losses.append(self._advance())
            bar.update()
            if self.step % self.schedule.select_every == 0 or self.step == steps:
                self._keep(float(np.mean(losses)))
                LOG.info('%s step %d/%d: loss %.4f, selection %.4f',
                         *(self.name, self.step, steps, *self.history[-1][1:]))  # fmt: skip
                losses = []
                if artifact:
                    artifact.save_state(self.state())
        bar.close()
        if self.best:
            self.trained.load_state_dict(self.best)
        model = self.trained.to(device='cpu', memory_format=CONTIGUOUS).eval()  # type: ignore[call-overload]
        looks = [look for look in self.history if not math.isnan(look[2])]
        best = max(looks, key=lambda look: look[2])[0] if looks else steps
        return Trained(model, best, tuple(self.history))

    def _advance(self) -> float:
        """Do one step and return its loss."""
        self.trained.train()
        indices, row, column = self.draw()
        for group in self.optimizer.param_groups:
            rate = group.get('rate', self.schedule.learning_rate)
            group['lr'] = rate * self.rate_factor() * group.get('times', 1.0)
        self.optimizer.zero_grad()
        loss = self._descend(indices, row, column)
        self.optimizer.step()
        self.step += 1
        return loss

    def _descend(self, indices: Sequence[int], row: int, column: int) -> float:
        """Leave the gradient of a step's loss with the parameters; return the loss."""
        loss = self.loss(indices, row, column)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.together and world() > 1:  # each has the gradient of the sum of all losses
            gradients = [p.grad for p in self.trained.parameters() if p.grad is not None]
            sum_over_all(gradients)
            for gradient in gradients:
                gradient /= world()
        return float(loss.detach())

    def _keep(self, loss: float) -> None:
        """Add a look to the history; remember the weights when it is the best."""
        figure = self.look()
        if figure is not None and all(figure > known for _, _, known in self.history):
            self.best = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.history.append((self.step, loss, math.nan if figure is None else figure))

    @property
    def _mixtures(self) -> list[GmmHead]:
        """The model's mixtures: their memory belongs to the state."""
        return [module for module in self.trained.modules() if isinstance(module, GmmHead)]

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors that resuming needs."""
        state = {f'model.{k}': v.clone() for k, v in self.trained.state_dict().items()}
        state |= {f'best.{k}': v for k, v in self.best.items()}
        for index, values in self.optimizer.state_dict()['state'].items():
            state |= {f'optimizer.{index}.{k}': v for k, v in values.items()}
        for index, head in enumerate(self._mixtures):
            state |= {f'queue.{index}': head.queue, f'place.{index}': head.place}
        state['history'] = torch.tensor(self.history, dtype=torch.float64)
        return state | {'step': torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor] | None) -> None:
        """Take up what state() gave, if anything."""
        if state is None:
            return
        self.trained.load_state_dict(part_of(state, 'model.'))
        self.best, self.step = part_of(state, 'best.'), int(state['step'])
        self.history = [(int(a), float(b), float(c)) for a, b, c in state['history']]
        for index, head in enumerate(self._mixtures):
            head.queue.copy_(state[f'queue.{index}'])
            head.place.copy_(state[f'place.{index}'])
            head.steps = self.step
        whole = self.optimizer.state_dict()
        for name, value in part_of(state, 'optimizer.').items():
            index, field = name.split('.')
            whole['state'].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(whole)


class EpochRun(TrainingRun):
    """
    A run that sees every image once an epoch, in an order that depends on seed and epoch alone.

    A look ends each epoch. config: epochs, batch, learning_rate, pixel_step and seed.
    """

    def __init__(
        self, model: nn.Module, images: int, config: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        each = math.ceil(images / config.batch)
        plan = Schedule(
            steps=each * config.epochs,
            select_every=each,
            batch=config.batch,
            learning_rate=config.learning_rate,
            pixel_step=config.pixel_step,
            seed=config.seed,
        )
        super().__init__(model, images, plan, optimizer)

    def draw(self) -> tuple[list[int], int, int]:
        """Return the step's images, not sorted, and its first pixel."""
        plan = self.schedule
        epoch, place = divmod(self.step, plan.select_every)
        if place == 0:
            self._random = np.random.default_rng((plan.seed, epoch))
            self._order = self._random.permutation(self.images).tolist()
        row, column = (int(v) for v in self._random.integers(plan.pixel_step, size=2))
        return self._order[place * plan.batch : (place + 1) * plan.batch], row, column


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then linearly to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max((steps - step) / max(steps - warmup, 1), 1e-4)


def cosine(step: float, steps: float) -> float:
    """Return the share of the learning rate at a step, 1 at step 0 and 0 after the last."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """
    Return the summed cross-entropy over labelled pixels, and their number.

    logits: float (N, C, ...). labels: int64 (N, ...), class ids or IGNORED.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum')
    return total, int((labels != IGNORED).sum())
