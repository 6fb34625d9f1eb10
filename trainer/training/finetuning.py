# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Fine-tuning the backbone while a patch classifier trains on it (PixOOD, section IV-E, "ft").

Learning rate 1e-6 with a cosine, as published for boats. Only what the chosen layers need is
tuned; class token, registers and position embedding are constants of the baked graph and stay.
The classifier that trains along is thrown away: the stages behind begin anew on the tuned tokens.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ood_perception.errors import ConfigError

from ..artifacts import REPORT_FILE, load_checkpoint, part_of, save_checkpoint
from ..backbones import load_backbone
from ..backbones.base import Backbone, BackboneChoice
from ..data.images import IGNORED, PictureList
from ..features import View, network_picture
from ..nets.patch_classifier import Classifier, Upsampler

LOG = logging.getLogger(__name__)
WEIGHTS_FILE = 'backbone.safetensors'


@dataclass(frozen=True)
class FinetuningConfig:
    """
    How the backbone is tuned.

    epochs: passes over the training pictures, 0 = the backbone stays frozen.
    learning_rate: of the backbone; classifier_learning_rate: of the classifier that trains along.
        Both fall to 0 along a cosine, step by step.
    batch, pixel_step, weight_decay, hidden: as for the classifier (see ClassifierConfig).
    """

    epochs: int = 0
    learning_rate: float = 1e-6
    classifier_learning_rate: float = 1e-4
    batch: int = 2
    pixel_step: int = 4
    weight_decay: float = 5e-4
    hidden: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.epochs < 0 or min(self.batch, self.pixel_step) < 1 or self.learning_rate <= 0:
            raise ConfigError(
                f'finetuning epochs {self.epochs}, batch {self.batch}, pixel_step '
                f'{self.pixel_step}, learning_rate {self.learning_rate}: give epochs of at least '
                '0, the others above 0'
            )


@dataclass(frozen=True)
class Finetuning:
    """What a run did: steps, the mean loss of every epoch, the backbone's rate at every step."""

    steps: int
    losses: tuple[float, ...]
    rates: tuple[float, ...]


@dataclass(frozen=True)
class _Grid:
    """What Upsampler reads of a feature set."""

    height: int
    width: int
    patch: int


def finetune(
    backbone: Backbone,
    pictures: PictureList,
    layers: Sequence[int | str],
    view: View,
    config: FinetuningConfig,
    *,
    checkpoint: Path | None = None,
    key: str = '',
    progress: bool = False,
) -> Finetuning:
    """
    Tune a backbone in place on labelled pictures and leave it frozen.

    layers: that the classifier reads. checkpoint: file of the unfinished run, taken up again after
    the last whole epoch when it was written under the same key. The same seed gives the same
    weights on the same machine.
    """
    run = _Run(backbone, len(pictures.classes.names), layers, view, config)
    run.restore(load_checkpoint(checkpoint, key) if checkpoint else None)
    steps = math.ceil(len(pictures) / config.batch)
    try:
        for epoch in range(len(run.losses), config.epochs):
            run.epoch(pictures, epoch, steps, progress)
            facts = (epoch + 1, config.epochs, run.losses[-1])
            LOG.info('fine-tuning epoch %d/%d: loss %.4f', *facts)
            if checkpoint:
                save_checkpoint(checkpoint, run.state(), key)
    finally:
        backbone.requires_grad_(False).eval()
    total = steps * config.epochs
    rates = tuple(config.learning_rate * cosine(step, total) for step in range(total))
    return Finetuning(total, tuple(run.losses), rates)


def cosine(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step, 1 at step 0 and 0 after the last."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


class _Run:
    """Backbone, classifier and optimiser of one run."""

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        layers: Sequence[int | str],
        view: View,
        config: FinetuningConfig,
    ) -> None:
        self.config, self.view = config, view
        self.baked = backbone.baked(*view.size, layers)
        names = [str(layer) for layer in layers]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            width = sum(backbone.width(layer) for layer in layers)
            self.classifier = Classifier(width, classes, names, 'mlp', config.hidden)
        self.modules = nn.ModuleDict({'backbone': self.baked, 'classifier': self.classifier})
        self.baked.requires_grad_(True)
        rates = (config.learning_rate, config.classifier_learning_rate)
        parts = (self.baked, self.classifier)
        groups = [
            {'params': list(part.parameters()), 'lr': rate, 'first': rate}
            for part, rate in zip(parts, rates, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.upsampler = Upsampler(_Grid(*view.size, backbone.patch), config.pixel_step)
        self.losses: list[float] = []

    def epoch(self, pictures: PictureList, epoch: int, steps: int, progress: bool) -> None:
        """Train one epoch; its randomness depends on seed and epoch alone."""
        random = np.random.default_rng((self.config.seed, epoch))
        order = random.permutation(len(pictures))
        losses = []
        for step in tqdm(range(steps), desc='fine-tuning', unit='batch', disable=not progress):
            factor = cosine(epoch * steps + step, steps * self.config.epochs)
            for group in self.optimizer.param_groups:
                group['lr'] = group['first'] * factor
            chosen = order[step * self.config.batch : (step + 1) * self.config.batch]
            row, column = (int(v) for v in random.integers(self.config.pixel_step, size=2))
            loss = self._loss(pictures, [int(i) for i in chosen], row, column)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(float(loss.detach()))
        self.losses.append(float(np.mean(losses)))

    def _loss(
        self, pictures: PictureList, chosen: Sequence[int], row: int, column: int
    ) -> torch.Tensor:
        """Return the mean cross-entropy over the batch's labelled pixels (0 without any)."""
        views = [network_picture(pictures, index, self.view) for index in chosen]
        images = torch.from_numpy(np.stack([image for image, _ in views]))
        step = self.config.pixel_step
        labels = np.stack([label[row::step, column::step] for _, label in views])
        logits = self.classifier(torch.cat(self.baked(images), 3))
        flat = self.upsampler(logits, row, column).reshape(-1, logits.shape[-1])
        target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        total = functional.cross_entropy(flat, target, ignore_index=IGNORED, reduction='sum')
        return total / max(int((target != IGNORED).sum()), 1)

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors that resuming needs."""
        state = {f'model.{name}': value for name, value in self.modules.named_parameters()}
        for index, values in self.optimizer.state_dict()['state'].items():
            state |= {f'optimizer.{index}.{name}': value for name, value in values.items()}
        return state | {'losses': torch.tensor(self.losses, dtype=torch.float64)}

    def restore(self, state: dict[str, torch.Tensor] | None) -> None:
        """Take up what state() gave, if anything."""
        if state is None:
            return
        self.modules.load_state_dict(part_of(state, 'model.'), strict=False)
        self.losses = [float(value) for value in state['losses']]
        whole = self.optimizer.state_dict()
        for name, value in part_of(state, 'optimizer.').items():
            index, field = name.split('.')
            whole['state'].setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict(whole)


def save_tuned(folder: Path, backbone: Backbone) -> None:
    """Write a tuned backbone's weights, as load_tuned reads them."""
    tensors = {name: value.contiguous() for name, value in backbone.model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


def load_tuned(
    folder: Path,
    origin: Backbone,
    choice: BackboneChoice,
    config: FinetuningConfig,
    cache: Path | None = None,
) -> Backbone:
    """
    Load a tuned backbone; its provenance says what it was tuned from, how long and at which rate.

    Its weights have no origin that they could be completed from: a bundle has to ship them.
    """
    tuned = load_backbone(replace(choice, weights=str(folder / WEIGHTS_FILE)), cache)
    tuned.licence = origin.licence
    done = json.loads((folder / REPORT_FILE).read_text())
    settings = {name: value for name, value in asdict(config).items() if name != 'seed'}
    kept = {name: value for name, value in origin.provenance.items() if name != 'path'}
    tuned.provenance |= {
        'origin': {},
        'description': f'{origin.provenance.get("description", origin.name)}, fine-tuned again',
        'finetuned': {**settings, 'steps': done['steps'], 'losses': done['losses'], 'from': kept},
    }
    return tuned
