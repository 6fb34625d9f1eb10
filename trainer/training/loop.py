# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A resumable training run that looks at a selection and keeps the best state of its model."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from ..artifacts import load_checkpoint, part_of, save_checkpoint
from ..nets.gmm import GmmHead

LOG = logging.getLogger(__name__)


class Schedule(Protocol):
    """
    What a run reads of its settings.

    steps: optimiser steps, `warmup` of them with a rising rate; batch: pictures in each.
    pixel_step: every pixel_step-th row and column counts in the loss, from a drawn place on.
    select_every: steps between two looks at the selection.
    """

    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def pixel_step(self) -> int: ...
    @property
    def select_every(self) -> int: ...
    @property
    def seed(self) -> int: ...


class TrainingRun(ABC):
    """
    One run of AdamW on a model; what a step sees depends on the seed and the step alone.

    pictures: number of pictures to draw from. history: (step, mean loss since the last look,
    figure of the selection) of each look; the larger figure is the better.
    """

    def __init__(
        self, model: torch.nn.Module, pictures: int, schedule: Schedule, weight_decay: float
    ) -> None:
        self.trained, self.pictures, self.schedule, self.step = model, pictures, schedule, 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), schedule.learning_rate, weight_decay=weight_decay
        )
        self.history: list[tuple[int, float, float]] = []
        self.best: dict[str, torch.Tensor] = {}

    @abstractmethod
    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the loss of pictures, at every pixel_step-th pixel from (row, column) on."""

    @abstractmethod
    def head(self) -> torch.nn.Module:
        """Return the model's head; the memory of a mixture belongs to the state."""

    def rate_factor(self) -> float:
        """Return the share of the learning rate at the step; a group's 'times' comes on top."""
        return rate_factor(self.step, self.schedule.steps, self.schedule.warmup)

    def fit(
        self,
        name: str,
        look: Callable[[], float],
        checkpoint: Path | None,
        key: str,
        progress: bool,
    ) -> int:
        """
        Train to the end, on from `checkpoint` where it belongs to `key`; load the best state.

        look: the selection's figure of the model as it is. Returns the best state's step.
        """
        self.restore(load_checkpoint(checkpoint, key) if checkpoint else None)
        steps, losses = self.schedule.steps, list[float]()
        bar = tqdm(total=steps, initial=self.step, desc=name, unit='step', disable=not progress)
        while self.step < steps:
            losses.append(self._advance())
            bar.update()
            if self.step % self.schedule.select_every == 0 or self.step == steps:
                self._keep(float(np.mean(losses)), look())
                LOG.info('%s step %d/%d: loss %.4f, selection %.4f',
                         *(name, self.step, steps, *self.history[-1][1:]))  # fmt: skip
                losses = []
                if checkpoint:
                    save_checkpoint(checkpoint, self.state(), key)
        bar.close()
        self.trained.load_state_dict(self.best)
        return max(self.history, key=lambda look: look[2])[0]

    def _advance(self) -> float:
        """Do one step and return its loss."""
        plan = self.schedule
        self.trained.train()
        random = np.random.default_rng((plan.seed, self.step))
        drawn = random.choice(self.pictures, min(plan.batch, self.pictures), replace=False)
        row, column = (int(v) for v in random.integers(plan.pixel_step, size=2))
        for group in self.optimizer.param_groups:
            group['lr'] = plan.learning_rate * self.rate_factor() * group.get('times', 1.0)
        loss = self.loss(sorted(int(i) for i in drawn), row, column)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _keep(self, loss: float, figure: float) -> None:
        """Add a look to the history; remember the weights when it is the best."""
        if all(figure > known for _, _, known in self.history):
            self.best = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.history.append((self.step, loss, figure))

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors that resuming needs."""
        state = {f'model.{k}': v.clone() for k, v in self.trained.state_dict().items()}
        state |= {f'best.{k}': v for k, v in self.best.items()}
        for index, values in self.optimizer.state_dict()['state'].items():
            state |= {f'optimizer.{index}.{k}': v for k, v in values.items()}
        head = self.head()
        if isinstance(head, GmmHead):
            state |= {'gmm.queue': head.queue, 'gmm.place': head.place}
        state['history'] = torch.tensor(self.history, dtype=torch.float64)
        return state | {'step': torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor] | None) -> None:
        """Take up what state() gave, if anything."""
        if state is None:
            return
        self.trained.load_state_dict(part_of(state, 'model.'))
        self.best, self.step = part_of(state, 'best.'), int(state['step'])
        self.history = [(int(a), float(b), float(c)) for a, b, c in state['history']]
        head = self.head()
        if isinstance(head, GmmHead):
            head.queue.copy_(state['gmm.queue'])
            head.place.copy_(state['gmm.place'])
            head.steps = self.step
        whole = self.optimizer.state_dict()
        for name, value in part_of(state, 'optimizer.').items():
            index, field = name.split('.')
            whole['state'].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(whole)


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then linearly to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max((steps - step) / max(steps - warmup, 1), 1e-4)
