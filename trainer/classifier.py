# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The patch classifier: a two-layer GELU MLP or a linear probe, trained at label resolution.

As PixOOD trains it: 1x1 layers over the concatenated tokens of several blocks, patch logits
upsampled bilinearly to the labels, cross-entropy over pixels, AdamW, best epoch by validation.
Bilinear upsampling is two matrix products (rows, then columns), so a subset of the pixels costs
only its share.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError

from .checkpoint import load_checkpoint, save_checkpoint
from .features import FeatureSet
from .patches import patch_labels

LOG = logging.getLogger(__name__)
IGNORED = 255
KINDS = ('mlp', 'linear')
MATMULS = ('f32', 'bf16')
SCHEDULES = ('constant', 'cosine')


@dataclass(frozen=True)
class ClassifierConfig:
    """
    How the classifier is trained (defaults: PixOOD's, but the hidden width is that of its input).

    kind: 'mlp' or 'linear'. hidden: width of the hidden layer, 0 = that of the input.
    pixel_step: 1 trains on every pixel; s takes every s-th row and column, at a random place
        in each batch (an unbiased sample of s^2 fewer pixels).
    matmul: arithmetic of the layers' products, 'f32' or 'bf16'.
    schedule: of the learning rate, 'constant' or 'cosine' (to 0 over the epochs, by batch).
    """

    kind: str = 'mlp'
    hidden: int = 0
    epochs: int = 30
    batch: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 5e-4
    pixel_step: int = 1
    matmul: str = 'f32'
    schedule: str = 'constant'
    seed: int = 42

    def __post_init__(self) -> None:
        choices = (('kind', KINDS), ('matmul', MATMULS), ('schedule', SCHEDULES))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'classifier {name} {getattr(self, name)!r}: choose one of {", ".join(known)}'
                )
        if min(self.epochs, self.batch, self.pixel_step) < 1 or self.hidden < 0:
            raise ConfigError('classifier epochs, batch and pixel_step must be at least 1')


class Classifier(nn.Module):
    """
    Patch logits from the concatenated tokens of several layers.

    kind: 'mlp' or 'linear'. layers: token names in the order of concatenation.
    hidden: the first layer of an MLP, None for a linear probe. output: the last layer.
    """

    def __init__(self, width: int, classes: int, layers: Sequence[str], kind: str, hidden: int):
        super().__init__()
        self.kind, self.layers = kind, tuple(layers)
        hidden = hidden or width
        self.hidden = nn.Linear(width, hidden) if kind == 'mlp' else None
        self.output = nn.Linear(hidden if kind == 'mlp' else width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map float32 (B, gh, gw, L*D) to logits (B, gh, gw, C)."""
        if self.hidden is not None:
            tokens = functional.gelu(self.hidden(tokens))
        return self.output(tokens)


@dataclass(frozen=True)
class Quality:
    """
    How well a classifier does on a feature set.

    patch_accuracy: share of the patches with one label over at least 90 % of their pixels whose
        arg-max is that label. mean_iou: over classes that occur in labels or prediction, pixels
        at label resolution. iou: of each class, NaN where it does not occur. confusion: int64
        (C, C), rows = labels, pixels.
    """

    patch_accuracy: float
    mean_iou: float
    iou: tuple[float, ...]
    confusion: npt.NDArray[np.int64]


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


@torch.no_grad()
def evaluate_classifier(
    classifier: Classifier, features: FeatureSet, matmul: str = 'f32', step: int = 1
) -> Quality:
    """Measure a classifier; step: take every step-th row and column only."""
    count = classifier.output.out_features
    confusion = np.zeros((count, count), np.int64)
    right = total = 0
    upsampler = Upsampler(features, step)
    for index in range(len(features.names)):
        labels = np.asarray(features.labels[index])
        logits = _logits(classifier, batch_tokens(features, classifier.layers, [index]), matmul)
        pixels = upsampler(logits, 0, 0)[0].argmax(-1).numpy().reshape(-1)
        truth = labels[::step, ::step].reshape(-1)
        known = truth != IGNORED
        pairs = truth[known].astype(np.int64) * count + pixels[known]
        confusion += np.bincount(pairs, minlength=count**2).reshape(count, count)
        patches, share = patch_labels(labels, features.patch, count)
        pure = (share >= 0.9) & (patches != IGNORED)
        right += int((logits[0].argmax(-1).numpy() == patches)[pure].sum())
        total += int(pure.sum())
    iou = iou_of(confusion)
    return Quality(right / max(total, 1), float(np.nanmean(iou)), tuple(iou.tolist()), confusion)


def iou_of(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return intersection over union of each class; NaN for a class that does not occur."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def batch_tokens(
    features: FeatureSet, layers: Sequence[str], indices: Sequence[int]
) -> torch.Tensor:
    """Return float32 (B, gh, gw, L*D): the layers' tokens of some pictures, concatenated."""
    parts = [np.stack([features.tokens[layer][i] for i in indices]) for layer in layers]
    return torch.from_numpy(np.concatenate(parts, axis=-1)).float()


class Upsampler:
    """
    Bilinear upsampling of patch maps to label pixels, edges clamped (align_corners=False).

    step: rows and columns are taken `step` apart, from a place chosen in each call.
    """

    def __init__(self, features: FeatureSet, step: int = 1):
        grid = (features.height // features.patch, features.width // features.patch)
        self.step = step
        self.rows = interpolation_matrix(grid[0], features.height)
        self.columns = interpolation_matrix(grid[1], features.width)

    def __call__(self, maps: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """Return (B, rows, columns, C) of (B, gh, gw, C), from pixel (row, column) on."""
        rows, columns = self.rows[row :: self.step], self.columns[column :: self.step]
        batch, _, width, channels = maps.shape
        tall = torch.matmul(rows, maps.reshape(batch, -1, width * channels))
        return torch.matmul(columns, tall.reshape(batch, len(rows), width, channels))


def interpolation_matrix(cells: int, pixels: int) -> torch.Tensor:
    """Return float32 (pixels, cells): bilinear weights of cell centres at pixel centres."""
    place = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (cells / pixels) - 0.5
    place = place.clamp(0.0, cells - 1.0)
    left = place.floor().long().clamp(max=max(cells - 2, 0))
    weights = torch.zeros(pixels, cells, dtype=torch.float64)
    right = (left + 1).clamp(max=cells - 1)
    share = (place - left)[:, None]
    weights.scatter_add_(1, left[:, None], 1.0 - share)
    weights.scatter_add_(1, right[:, None], share)
    return weights.float()


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Write a classifier as safetensors; its layout is in the metadata."""
    metadata = {'kind': classifier.kind, 'layers': json.dumps(classifier.layers)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(classifier.state_dict(), path, metadata=metadata)


def load_classifier(path: Path) -> Classifier:
    """Read what save_classifier wrote; DataError where it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            metadata = stream.metadata() or {}
        kind, layers = metadata['kind'], json.loads(metadata['layers'])
        state = load_file(path)
        first = state['hidden.weight' if kind == 'mlp' else 'output.weight']
        classes, width = len(state['output.bias']), int(first.shape[1])
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f'{path} is no classifier of this trainer: {error}') from error
    classifier = Classifier(width, classes, layers, kind, int(first.shape[0]))
    classifier.load_state_dict(state)
    return classifier.eval()


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
        logits = _logits(self.model, tokens, self.config.matmul)
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


def _logits(model: Classifier, tokens: torch.Tensor, matmul: str) -> torch.Tensor:
    """Return float32 patch logits, products in bfloat16 where asked."""
    with torch.autocast('cpu', torch.bfloat16, enabled=matmul == 'bf16'):
        logits: torch.Tensor = model(tokens)
    return logits.float()


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
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
