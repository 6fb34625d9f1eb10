# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Training of the closed-set segmenter at label resolution.

On cached tokens of pre-drawn views (the `cpu` preset) or on views drawn in every step (`paper`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm

from .checkpoint import load_checkpoint, part_of, save_checkpoint
from .classifier import iou_of
from .data import IGNORED
from .features import FeatureSet
from .fpn import UPSAMPLING
from .gmm import CONTRAST_WEIGHT, GmmHead
from .label_maps import MapUpsampler, cell_labels, tokens_of
from .online import OnlineFeatures, device_of, drawn, token_width
from .segmenter import Segmenter, SegmenterConfig

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmenterTraining:
    """A trained segmenter; history: (step, mean loss since the last, mean IoU) of each look."""

    segmenter: Segmenter
    best_step: int
    history: tuple[tuple[int, float, float], ...]


def fit_segmenter(
    train: FeatureSet | OnlineFeatures,
    select: FeatureSet,
    layers: Sequence[str],
    classes: int,
    config: SegmenterConfig,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> SegmenterTraining:
    """
    Train on cached or freshly drawn tokens; keep the state with the best mean IoU on `select`.

    checkpoint: a file to resume from, written at every look. The same seed gives the same
    segmenter on one machine, resumed or not.
    """
    run = _Run(train, layers, classes, config)
    key = _run_key(train, select, layers, classes, config)
    run.restore(load_checkpoint(checkpoint, key) if checkpoint else None)
    bar = tqdm(
        total=config.steps, initial=run.step, desc='segmenter', unit='step', disable=not progress
    )
    losses: list[float] = []
    while run.step < config.steps:
        losses.append(run.advance())
        bar.update()
        if run.step % config.select_every == 0 or run.step == config.steps:
            mean_iou = float(np.nanmean(confusion_iou(run.model, select, step=2)))
            run.keep(float(np.mean(losses)), mean_iou)
            LOG.info(
                'segmenter step %d/%d: loss %.4f, mean IoU %.4f',
                *(run.step, config.steps, np.mean(losses), mean_iou),
            )
            losses = []
            if checkpoint:
                save_checkpoint(checkpoint, run.state(), key)
    bar.close()
    return run.result()


@torch.no_grad()
def confusion_iou(
    model: Segmenter, features: FeatureSet, step: int = 1
) -> npt.NDArray[np.float64]:
    """Return the IoU of each class at label resolution, NaN where it does not occur."""
    model.eval()
    count = model.classes
    confusion = np.zeros((count, count), np.int64)
    upsampler, device = MapUpsampler(features, UPSAMPLING, step), next(model.parameters()).device
    for index in range(len(features.names)):
        logits = model(*tokens_of(features, model.layers, [index], device))
        truth = np.asarray(features.labels[index])[::step, ::step]
        pixels = upsampler(logits)[0].argmax(-1).cpu().numpy()
        known = truth != IGNORED
        pairs = truth[known].astype(np.int64) * count + pixels[known]
        confusion += np.bincount(pairs, minlength=count**2).reshape(count, count)
    return iou_of(confusion)


class _Run:
    """One training run: model, optimiser, and the best state so far."""

    def __init__(
        self,
        train: FeatureSet | OnlineFeatures,
        layers: Sequence[str],
        classes: int,
        config: SegmenterConfig,
    ) -> None:
        self.train, self.config, self.step = train, config, 0
        self.device, dim = device_of(train), token_width(train, layers[0])
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = Segmenter(layers, dim, classes, config)
        # a fifth faster on a CPU
        self.model.to(device=self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.upsampler = MapUpsampler(train, UPSAMPLING, config.pixel_step)
        self.history: list[tuple[int, float, float]] = []
        self.best: dict[str, torch.Tensor] = {}

    def advance(self) -> float:
        """Do one step; its pictures depend on seed and step alone. Return its loss."""
        self.model.train()
        random = np.random.default_rng((self.config.seed, self.step))
        count = len(self.train.names)
        indices = random.choice(count, min(self.config.batch, count), replace=False)
        row, column = (int(v) for v in random.integers(self.config.pixel_step, size=2))
        for group in self.optimizer.param_groups:
            group['lr'] = self.config.learning_rate * rate_factor(
                self.step, self.config.steps, self.config.warmup
            )
        loss = self._loss(sorted(int(i) for i in indices), row, column)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return cross-entropy over labelled pixels, for a mixture its contrast loss as well."""
        step = self.config.pixel_step
        batch, places = drawn(self.train, indices, self.step)
        tokens = tokens_of(batch, self.model.layers, places, self.device)
        bf16 = self.config.matmul == 'bf16'
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            feature = self.model.feature(*tokens)
        logits = self.model.classifier(feature.float())
        labels = np.stack([batch.labels[i] for i in places])
        target = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64)).flatten()
        target = target.to(self.device)
        pixels = self.upsampler(logits, row, column).flatten(0, 2)
        total = functional.cross_entropy(pixels, target, ignore_index=IGNORED, reduction='sum')
        loss = total / max(int((target != IGNORED).sum()), 1)
        if isinstance(self.model.classifier, GmmHead):
            # every second cell along each axis: its neighbours tell the mixture nothing new
            thin = (slice(None), slice(row % 2, None, 2), slice(column % 2, None, 2))
            cells = cell_labels(labels, feature.shape[1:3])[thin].astype(np.int64)
            target = torch.from_numpy(cells).flatten().to(self.device)
            contrast = self.model.classifier.training_loss(
                feature[thin].float().flatten(0, 2), target
            )
            loss = loss + CONTRAST_WEIGHT * contrast
        return loss

    def keep(self, loss: float, mean_iou: float) -> None:
        """Add a look to the history; remember the weights when it is the best."""
        if all(mean_iou > known for _, _, known in self.history):
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.history.append((self.step, loss, mean_iou))

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors that resuming needs."""
        state = {f'model.{k}': v.clone() for k, v in self.model.state_dict().items()}
        state |= {f'best.{k}': v for k, v in self.best.items()}
        for index, values in self.optimizer.state_dict()['state'].items():
            state |= {f'optimizer.{index}.{k}': v for k, v in values.items()}
        head = self.model.classifier
        if isinstance(head, GmmHead):
            state |= {'gmm.queue': head.queue, 'gmm.place': head.place}
        state['history'] = torch.tensor(self.history, dtype=torch.float64)
        return state | {'step': torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor] | None) -> None:
        """Take up what state() gave, if anything."""
        if state is None:
            return
        self.model.load_state_dict(part_of(state, 'model.'))
        self.best, self.step = part_of(state, 'best.'), int(state['step'])
        self.history = [(int(a), float(b), float(c)) for a, b, c in state['history']]
        head = self.model.classifier
        if isinstance(head, GmmHead):
            head.queue.copy_(state['gmm.queue'])
            head.place.copy_(state['gmm.place'])
            head.steps = self.step
        whole = self.optimizer.state_dict()
        for name, value in part_of(state, 'optimizer.').items():
            index, field_name = name.split('.')
            whole['state'].setdefault(int(index), {})[field_name] = value
        self.optimizer.load_state_dict(whole)

    def result(self) -> SegmenterTraining:
        """Return the best state's segmenter, in evaluation mode."""
        self.model.load_state_dict(self.best)
        best_step = max(self.history, key=lambda look: look[2])[0]
        # as it will be read again
        model = self.model.to(device='cpu', memory_format=torch.contiguous_format)
        return SegmenterTraining(model.eval(), best_step, tuple(self.history))


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then linearly to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max((steps - step) / max(steps - warmup, 1), 1e-4)


def _run_key(
    train: FeatureSet | OnlineFeatures,
    select: FeatureSet,
    layers: Sequence[str],
    classes: int,
    config: SegmenterConfig,
) -> str:
    parts = [train.key, train.names, select.key, select.names, list(layers), classes]
    return hashlib.sha256(json.dumps([*parts, asdict(config)]).encode()).hexdigest()
