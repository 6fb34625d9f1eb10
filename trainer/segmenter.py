# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The closed-set segmenter on the frozen ViT: tokens of four layers -> decoder feature -> logits.

It serves every head that needs a decoder feature or closed-set logits (UEM, RPL, NFlowJS, the
baselines). Trained on cached tokens of pre-drawn views, at label resolution.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ood_perception.errors import ConfigError

from .checkpoint import load_checkpoint, save_checkpoint
from .classifier import Upsampler, iou_of
from .config_tools import settings_digest
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
    seed: int = 42

    def __post_init__(self) -> None:
        choices = (('head', HEADS), ('preset', PRESETS), ('matmul', ('f32', 'bf16')))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'segmenter {name} {getattr(self, name)!r}: choose one of {", ".join(known)}'
                )
        if min(self.steps, self.batch, self.pixel_step, self.width, self.select_every) < 1:
            raise ConfigError('segmenter steps, batch, width, pixel_step, select_every: at least 1')


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
    key = settings_digest([train.key, select.key, list(layers), classes, config])
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
def confusion_iou(model: Segmenter, features: FeatureSet, step: int = 1) -> np.ndarray:
    """Return the IoU of each class at label resolution, NaN where it does not occur."""
    model.eval()
    count = model.classes
    confusion = np.zeros((count, count), np.int64)
    for index in range(len(features.names)):
        logits = model(*tokens_of(features, model.layers, [index]))
        truth = np.asarray(features.labels[index])[::step, ::step]
        pixels = upsampled(logits, features, step)[0].argmax(-1).numpy()
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


def upsampled(maps: torch.Tensor, features: FeatureSet, step: int = 1) -> torch.Tensor:
    """Bring (B, rows, columns, C) to label pixels, every step-th row and column, bilinearly."""
    planes = maps.permute(0, 3, 1, 2)
    size = (features.height, features.width)
    fine = functional.interpolate(planes, size, mode='bilinear', align_corners=False)
    return fine[:, :, ::step, ::step].permute(0, 2, 3, 1)
