# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The patch classifier: a two-layer GELU MLP or a linear probe over the tokens of several blocks.

Its patch logits are upsampled bilinearly to the labels: two matrix products (rows, then columns),
so a subset of the pixels costs only its share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from ood_perception.errors import DataError, check_choices, check_least
from ood_perception.metrics.segmentation import class_iou, confusion

from ..features import FeatureSet, tokens_of
from .patches import patch_labels

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
        check_choices('classifier', self, kind=KINDS, matmul=MATMULS, schedule=SCHEDULES)
        check_least('classifier', self, 1, 'epochs', 'batch', 'pixel_step')
        check_least('classifier', self, 0, 'hidden')


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
        at label resolution. iou: of each class, NaN where it does not occur.
    """

    patch_accuracy: float
    mean_iou: float
    iou: tuple[float, ...]


def patch_logits_of(model: Classifier, tokens: torch.Tensor, matmul: str) -> torch.Tensor:
    """Return float32 patch logits, products in bfloat16 where asked."""
    with torch.autocast('cpu', torch.bfloat16, enabled=matmul == 'bf16'):
        logits: torch.Tensor = model(tokens)
    return logits.float()


@torch.no_grad()
def evaluate_classifier(
    classifier: Classifier, features: FeatureSet, matmul: str = 'f32', step: int = 1
) -> Quality:
    """Measure a classifier; step: take every step-th row and column only."""
    count = classifier.output.out_features
    counted = np.zeros((count, count), np.int64)
    right = total = 0
    upsampler = Upsampler(features, step)
    for index in range(len(features.names)):
        labels = np.asarray(features.labels[index])
        tokens = batch_tokens(features, classifier.layers, [index])
        logits = patch_logits_of(classifier, tokens, matmul)
        pixels = upsampler(logits, 0, 0)[0].argmax(-1).numpy()
        counted += confusion(pixels, labels[::step, ::step], count)
        patches, share = patch_labels(labels, features.patch, count)
        pure = (share >= 0.9) & (patches != IGNORED)
        right += int((logits[0].argmax(-1).numpy() == patches)[pure].sum())
        total += int(pure.sum())
    iou = class_iou(counted)
    return Quality(right / max(total, 1), float(np.nanmean(iou)), tuple(iou.tolist()))


def batch_tokens(
    features: FeatureSet, layers: Sequence[str], indices: Sequence[int]
) -> torch.Tensor:
    """Return float32 (B, gh, gw, L*D): the layers' tokens of some images, concatenated."""
    return torch.cat(tokens_of(features, layers, indices), -1)


class Sized(NamedTuple):
    """What upsamplers read of a set of images: sides of the network's input and of a patch."""

    height: int
    width: int
    patch: int


class Upsampler:
    """
    Bilinear upsampling of patch maps to label pixels, edges clamped (align_corners=False).

    step: rows and columns are taken `step` apart, from a place chosen in each call. factor: cells
    of the maps per patch.
    """

    def __init__(self, features: FeatureSet | Sized, step: int = 1, factor: int = 1):
        grid = [factor * side // features.patch for side in (features.height, features.width)]
        self.step = step
        self.rows = interpolation_matrix(grid[0], features.height)
        self.columns = interpolation_matrix(grid[1], features.width)

    def __call__(self, maps: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """Return (B, rows, columns, C) of (B, gh, gw, C), from pixel (row, column) on."""
        rows, columns = self.rows[row :: self.step], self.columns[column :: self.step]
        batch, high, width, channels = maps.shape
        tall = torch.matmul(rows, maps.reshape(batch, high, width * channels))
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
        return classifier_of(load_file(path), kind, layers)
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f'{path} is no classifier of this trainer: {error}') from error


def classifier_of(state: dict[str, torch.Tensor], kind: str, layers: Sequence[str]) -> Classifier:
    """Return a classifier of a kind with its weights; its widths are theirs."""
    first = state['hidden.weight' if kind == 'mlp' else 'output.weight']
    hidden, width = (int(length) for length in first.shape)
    classifier = Classifier(width, len(state['output.bias']), layers, kind, hidden)
    classifier.load_state_dict(state)
    return classifier.eval()
