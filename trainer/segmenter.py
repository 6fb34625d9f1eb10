# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The closed-set segmenter on the frozen ViT: tokens of four layers -> decoder feature -> logits.

It serves every head that needs a decoder feature or closed-set logits (UEM, RPL, NFlowJS, the
baselines). Trained on cached tokens of pre-drawn views, at label resolution.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ood_perception.errors import ConfigError, DataError

from .checkpoint import load_checkpoint, save_checkpoint
from .classifier import interpolation_matrix, iou_of
from .data import IGNORED
from .features import FeatureSet
from .fpn import PRESETS, UPSAMPLING, Decoder
from .gmm import CONTRAST_WEIGHT, GmmHead, GmmSettings

LOG = logging.getLogger(__name__)
HEADS = ('linear', 'gmm')


@dataclass(frozen=True)
class SegmenterConfig:
    """
    How the segmenter is built and trained (defaults: the `cpu` preset).

    head: 'linear' or 'gmm'. width: of the decoder feature. preset: of the decoder, see fpn.
    steps, batch: 6000 picture-steps by default. warmup: steps of rising rate; then it falls
        linearly (UEM: polynomial of power 1 to 1e-7). pixel_step: every s-th row and column.
    matmul: 'f32' or 'bf16' arithmetic of the decoder. select_every: steps between measurements of
        mean IoU on the selection pictures; the best state is kept.
    online: draw fresh views in every step and run the backbone on them (the `paper` preset, for a
        GPU), instead of the cached bank of views.
    """

    head: str = 'linear'
    width: int = 64
    preset: str = 'light'
    steps: int = 1500
    batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warmup: int = 50
    pixel_step: int = 2
    matmul: str = 'bf16'
    select_every: int = 250
    gmm: GmmSettings = field(default_factory=GmmSettings)
    online: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        choices = (('head', HEADS), ('preset', PRESETS), ('matmul', ('f32', 'bf16')))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'segmenter {name} {getattr(self, name)!r}: choose one of {", ".join(known)}'
                )
        if min(self.steps, self.batch, self.pixel_step, self.width, self.select_every) < 1:
            raise ConfigError(
                'segmenter steps, batch, width, pixel_step, select_every: at least 1'
            )


class Segmenter(nn.Module):
    """
    Decoder and classifier.

    layers: token names in the order of forward's arguments. upsampling: cells per patch.
    """

    def __init__(self, layers: Sequence[str], dim: int, classes: int, config: SegmenterConfig):
        super().__init__()
        self.config, self.classes, self.dim = config, classes, dim
        self.decoder = Decoder(layers, dim, config.width, config.preset)
        self.classifier: nn.Module = (
            GmmHead(config.width, classes, config.gmm)
            if config.head == 'gmm'
            else nn.Linear(config.width, classes)
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The token maps that it reads."""
        return self.decoder.layers

    @property
    def upsampling(self) -> int:
        """Cells of the feature per patch along each axis."""
        return UPSAMPLING

    def feature(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to the decoder feature (B, 4 gh, 4 gw, width)."""
        feature: torch.Tensor = self.decoder(*tokens).permute(0, 2, 3, 1)
        return feature

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to logits (B, 4 gh, 4 gw, C)."""
        logits: torch.Tensor = self.classifier(self.feature(*tokens).float())
        return logits


@dataclass(frozen=True)
class SegmenterTraining:
    """A trained segmenter; history: (step, mean loss since the last, mean IoU) of each look."""

    segmenter: Segmenter
    best_step: int
    history: tuple[tuple[int, float, float], ...]


def fit_segmenter(
    train: FeatureSet,
    select: FeatureSet,
    layers: Sequence[str],
    classes: int,
    config: SegmenterConfig,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> SegmenterTraining:
    """
    Train on cached tokens and keep the state with the best mean IoU on `select`.

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
    upsampler = MapUpsampler(features, UPSAMPLING, step)
    for index in range(len(features.names)):
        logits = model(*tokens_of(features, model.layers, [index]))
        truth = np.asarray(features.labels[index])[::step, ::step]
        pixels = upsampler(logits)[0].argmax(-1).numpy()
        known = truth != IGNORED
        pairs = truth[known].astype(np.int64) * count + pixels[known]
        confusion += np.bincount(pairs, minlength=count**2).reshape(count, count)
    return iou_of(confusion)


def tokens_of(
    features: FeatureSet, layers: Sequence[str], indices: Sequence[int]
) -> list[torch.Tensor]:
    """Return float32 (B, gh, gw, D) of each layer."""
    return [
        torch.from_numpy(np.stack([features.tokens[layer][i] for i in indices])).float()
        for layer in layers
    ]


class MapUpsampler:
    """
    Bilinear upsampling of maps to label pixels, edges clamped (align_corners=False).

    factor: cells of the maps per patch. step: every step-th row and column of pixels.
    """

    def __init__(self, features: FeatureSet, factor: int, step: int = 1) -> None:
        grid = [factor * side // features.patch for side in (features.height, features.width)]
        self.rows = interpolation_matrix(grid[0], features.height)
        self.columns = interpolation_matrix(grid[1], features.width)
        self.step = step

    def __call__(self, maps: torch.Tensor, row: int = 0, column: int = 0) -> torch.Tensor:
        """Return (B, rows, columns, C) of (B, f gh, f gw, C), from pixel (row, column) on."""
        rows, columns = self.rows[row :: self.step], self.columns[column :: self.step]
        batch, _, width, channels = maps.shape
        tall = torch.matmul(rows, maps.reshape(batch, -1, width * channels))
        return torch.matmul(columns, tall.reshape(batch, len(rows), width, channels))


class _Run:
    """One training run: model, optimiser, and the best state so far."""

    def __init__(
        self, train: FeatureSet, layers: Sequence[str], classes: int, config: SegmenterConfig
    ) -> None:
        self.train, self.config, self.step = train, config, 0
        dim = train.tokens[layers[0]].shape[-1]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = Segmenter(layers, dim, classes, config)
        self.model.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
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
        tokens = tokens_of(self.train, self.model.layers, indices)
        with torch.autocast('cpu', torch.bfloat16, enabled=self.config.matmul == 'bf16'):
            feature = self.model.feature(*tokens)
        logits = self.model.classifier(feature.float())
        labels = np.stack([self.train.labels[i] for i in indices])
        target = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64)).flatten()
        pixels = self.upsampler(logits, row, column).flatten(0, 2)
        total = functional.cross_entropy(pixels, target, ignore_index=IGNORED, reduction='sum')
        loss = total / max(int((target != IGNORED).sum()), 1)
        if isinstance(self.model.classifier, GmmHead):
            cells = torch.from_numpy(cell_labels(labels, feature.shape[1:3]).astype(np.int64))
            contrast = self.model.classifier.training_loss(
                feature.float().flatten(0, 2), cells.flatten()
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
        self.model.load_state_dict(_part(state, 'model.'))
        self.best, self.step = _part(state, 'best.'), int(state['step'])
        self.history = [(int(a), float(b), float(c)) for a, b, c in state['history']]
        head = self.model.classifier
        if isinstance(head, GmmHead):
            head.queue.copy_(state['gmm.queue'])
            head.place.copy_(state['gmm.place'])
            head.steps = self.step
        whole = self.optimizer.state_dict()
        for name, value in _part(state, 'optimizer.').items():
            index, field_name = name.split('.')
            whole['state'].setdefault(int(index), {})[field_name] = value
        self.optimizer.load_state_dict(whole)

    def result(self) -> SegmenterTraining:
        """Return the best state's segmenter, in evaluation mode."""
        self.model.load_state_dict(self.best)
        best_step = max(self.history, key=lambda look: look[2])[0]
        model = self.model.to(memory_format=torch.contiguous_format)  # as it will be read again
        return SegmenterTraining(model.eval(), best_step, tuple(self.history))


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then linearly to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max((steps - step) / max(steps - warmup, 1), 1e-4)


def cell_labels(labels: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the labels at the centres of a grid of cells, (B, rows, columns)."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * (pixels / cells)).astype(np.int64)
        for cells, pixels in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows][:, :, columns]


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _run_key(
    train: FeatureSet,
    select: FeatureSet,
    layers: Sequence[str],
    classes: int,
    config: SegmenterConfig,
) -> str:
    parts = [train.key, train.names, select.key, select.names, list(layers), classes]
    return hashlib.sha256(json.dumps([*parts, asdict(config)]).encode()).hexdigest()


def save_segmenter(path: Path, segmenter: Segmenter) -> None:
    """Write a segmenter as safetensors; its configuration is in the metadata."""
    values = {
        'layers': segmenter.layers,
        'dim': segmenter.dim,
        'classes': segmenter.classes,
        'config': asdict(segmenter.config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in segmenter.state_dict().items()}
    save_file(tensors, path, metadata={'segmenter': json.dumps(values)})


def load_segmenter(path: Path) -> Segmenter:
    """Read what save_segmenter wrote; DataError where it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            values = json.loads((stream.metadata() or {})['segmenter'])
        config = dict(values['config'])
        config['gmm'] = GmmSettings(**config['gmm'])
        segmenter = Segmenter(
            values['layers'], values['dim'], values['classes'], SegmenterConfig(**config)
        )
        segmenter.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise DataError(f'{path} is no segmenter of this trainer: {error}') from error
    return segmenter.requires_grad_(False).eval()
