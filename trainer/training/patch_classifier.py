# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Training of the patch classifier at label resolution.

As PixOOD trains it: patch logits upsampled bilinearly to the labels, cross-entropy over pixels,
AdamW, best epoch by validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ood_perception.errors import ConfigError, DataError

from ..distributed import mean_over_all, share
from ..feature_files import release
from ..features import FeatureSet, rows_of
from ..nets.patch_classifier import (
    IGNORED,
    Classifier,
    ClassifierConfig,
    Upsampler,
    batch_tokens,
    evaluate_classifier,
    patch_logits_of,
)
from .loop import EpochRun, cosine, cross_entropy_sum


class ClassifierRun(EpochRun):
    """
    A run of a classifier that keeps the epoch with the best mean IoU on `select`.

    layers: names of the token maps to concatenate. classes: their number. Raises ConfigError for
    layers that are not in the sets, DataError for labels that are of no class.
    """

    name, together = 'classifier', True

    def __init__(
        self,
        train: FeatureSet,
        select: FeatureSet,
        layers: Sequence[str],
        classes: int,
        config: ClassifierConfig,
    ):
        for features in (train, select):
            _check_set(features, layers, classes)
        self.train, self.select, self.config = train, select, config
        width = sum(train.tokens[layer].shape[-1] for layer in layers)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = Classifier(width, classes, layers, config.kind, config.hidden)
        optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        super().__init__(self.model, len(train.names), config, optimizer)
        self.upsampler = Upsampler(train, config.pixel_step)

    def look(self) -> float:
        """Return the mean IoU on the selection."""
        return evaluate_classifier(self.model, self.select, self.config.matmul).mean_iou

    def rate_factor(self) -> float:
        """Return 1, or the cosine of the fraction of the run that is done, in images."""
        if self.config.schedule == 'constant':
            return 1.0
        epoch, place = divmod(self.step, self.schedule.select_every)
        done = epoch + place * self.config.batch / self.images
        return cosine(done / self.config.epochs, 1)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the mean cross-entropy over the images' labelled pixels."""
        step, indices = self.config.pixel_step, sorted(share(indices))
        tokens = batch_tokens(self.train, self.model.layers, indices)
        logits = patch_logits_of(self.model, tokens, self.config.matmul)
        labels = rows_of(self.train.labels, indices)[:, row::step, column::step]
        release(self.train.labels)
        pixels = self.upsampler(logits, row, column)
        target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        return mean_over_all(*cross_entropy_sum(pixels.reshape(-1, pixels.shape[-1]), target))


def _check_set(features: FeatureSet, layers: Sequence[str], classes: int) -> None:
    """Refuse layers that the set lacks and sets without labelled pixels."""
    lacking = [layer for layer in layers if layer not in features.tokens]
    if lacking or not layers:
        raise ConfigError(
            f'classifier layers {list(layers)}: the features hold {sorted(features.tokens)}'
        )
    known = sorted(set[int]().union(*(np.unique(labels).tolist() for labels in features.labels)))
    ids = [label for label in known if label != IGNORED]
    if not ids or ids[-1] >= classes:
        raise DataError(f'labels {known} do not fit {classes} classes and ignored 255')
