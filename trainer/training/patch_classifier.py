# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Training of the patch classifier at label resolution.

As PixOOD trains it: patch logits upsampled bilinearly to the labels, cross-entropy over pixels,
AdamW, best epoch by validation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError

from ..artifacts import digest, load_checkpoint, save_checkpoint
from ..features import FeatureSet
from ..nets.patch_classifier import (
    IGNORED,
    Classifier,
    ClassifierConfig,
    Upsampler,
    batch_tokens,
    evaluate_classifier,
    patch_logits_of,
)

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """
    A trained classifier and its history.

    best_epoch: 0-based; history: (training loss, validation mIoU) of every epoch.
    """

    classifier: Classifier
    best_epoch: int
    history: tuple[tuple[float, float], ...]


def fit_classifier(
    train: FeatureSet,
    val: FeatureSet,
    layers: Sequence[str],
    classes: Sequence[str],
    config: ClassifierConfig,
    checkpoint: Path | None = None,
) -> Training:
    """
    Train a classifier and keep the epoch with the best mean IoU on `val`.

    layers: names of the token maps to concatenate. classes: names of the ids 0 .. C-1.
    checkpoint: a file to resume from and to write after every epoch. The same seed gives the
    same classifier, resumed or not. Raises ConfigError for layers that are not in the sets.
    """
    for features in (train, val):
        _check_set(features, layers, len(classes))
    run = _Run(train, layers, len(classes), config)
    key = _run_key(train, val, layers, classes, config)
    run.restore(load_checkpoint(checkpoint, key) if checkpoint else None)
    for epoch in range(len(run.history), config.epochs):
        loss = run.epoch(epoch)
        quality = evaluate_classifier(run.model, val, config.matmul)
        run.keep(epoch, loss, quality.mean_iou)
        LOG.info(
            'classifier epoch %d/%d: loss %.4f, mean IoU %.4f, patch accuracy %.4f',
            *(epoch + 1, config.epochs, loss, quality.mean_iou, quality.patch_accuracy),
        )
        if checkpoint:
            save_checkpoint(checkpoint, run.state(), key)
    return run.result()


class _Run:
    """One training run: model, optimiser, and the best state so far."""

    def __init__(
        self, train: FeatureSet, layers: Sequence[str], classes: int, config: ClassifierConfig
    ):
        self.train, self.config = train, config
        width = sum(train.tokens[layer].shape[-1] for layer in layers)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = Classifier(width, classes, layers, config.kind, config.hidden)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.upsampler = Upsampler(train, config.pixel_step)
        self.history: list[tuple[float, float]] = []
        self.best_epoch = -1
        self.best: dict[str, torch.Tensor] = {}

    def epoch(self, epoch: int) -> float:
        """Train one epoch and return its mean loss; its randomness depends on seed and epoch."""
        random = np.random.default_rng((self.config.seed, epoch))
        order = random.permutation(len(self.train.names))
        losses = []
        for start in range(0, len(order), self.config.batch):
            self._set_rate(epoch + start / len(order))
            indices = sorted(int(i) for i in order[start : start + self.config.batch])
            row, column = (int(v) for v in random.integers(self.config.pixel_step, size=2))
            loss = self._loss(indices, row, column)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def _set_rate(self, epoch: float) -> None:
        """Set the learning rate at a fractional epoch."""
        factor = 1.0
        if self.config.schedule == 'cosine':
            factor = 0.5 + 0.5 * math.cos(math.pi * min(epoch / self.config.epochs, 1.0))
        for group in self.optimizer.param_groups:
            group['lr'] = self.config.learning_rate * factor

    def _loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the mean cross-entropy over the batch's labelled pixels (0 without any)."""
        step = self.config.pixel_step
        tokens = batch_tokens(self.train, self.model.layers, indices)
        logits = patch_logits_of(self.model, tokens, self.config.matmul)
        labels = np.stack([self.train.labels[i][row::step, column::step] for i in indices])
        pixels = self.upsampler(logits, row, column)
        target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        flat = pixels.reshape(-1, pixels.shape[-1])
        total = functional.cross_entropy(flat, target, ignore_index=IGNORED, reduction='sum')
        return total / max(int((target != IGNORED).sum()), 1)

    def keep(self, epoch: int, loss: float, mean_iou: float) -> None:
        """Add an epoch to the history; remember the weights when it is the best."""
        if all(mean_iou > known for _, known in self.history):
            self.best_epoch = epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.history.append((loss, mean_iou))

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors that resuming needs."""
        state = {f'model.{k}': v for k, v in self.model.state_dict().items()}
        state |= {f'best.{k}': v for k, v in self.best.items()}
        for index, values in self.optimizer.state_dict()['state'].items():
            state |= {f'optimizer.{index}.{k}': v for k, v in values.items()}
        state['history'] = torch.tensor(self.history, dtype=torch.float64)
        state['best_epoch'] = torch.tensor(self.best_epoch)
        return state

    def restore(self, state: dict[str, torch.Tensor] | None) -> None:
        """Take up what state() gave, if anything."""
        if state is None:
            return
        self.model.load_state_dict(_part(state, 'model.'))
        self.best = _part(state, 'best.')
        self.best_epoch = int(state['best_epoch'])
        self.history = [(float(a), float(b)) for a, b in state['history']]
        whole = self.optimizer.state_dict()
        for name, value in _part(state, 'optimizer.').items():
            index, field = name.split('.')
            whole['state'].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(whole)

    def result(self) -> Training:
        """Return the best epoch's classifier, in evaluation mode."""
        self.model.load_state_dict(self.best)
        return Training(self.model.eval(), self.best_epoch, tuple(self.history))


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _check_set(features: FeatureSet, layers: Sequence[str], classes: int) -> None:
    """Refuse layers that the set lacks and sets without labelled pixels."""
    lacking = [layer for layer in layers if layer not in features.tokens]
    if lacking or not layers:
        raise ConfigError(
            f'classifier layers {list(layers)}: the features hold {sorted(features.tokens)}'
        )
    known = np.unique(features.labels)
    if known[known != IGNORED].size == 0 or known[known != IGNORED].max() >= classes:
        raise DataError(f'labels {known.tolist()} do not fit {classes} classes and ignored 255')


def _run_key(
    train: FeatureSet,
    val: FeatureSet,
    layers: Sequence[str],
    classes: Sequence[str],
    config: ClassifierConfig,
) -> str:
    """Return what a checkpoint depends on; at a constant rate more epochs go on with the run."""
    free = ('epochs',) if config.schedule == 'constant' else ()
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    parts = [train.key, train.names, val.key, val.names, list(layers), list(classes), settings]
    return digest(parts)
