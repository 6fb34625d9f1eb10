# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Training of the closed-set segmenter at label resolution.

On cached tokens of pre-drawn views (the `cpu` preset) or on views drawn in every step (`paper`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.metrics.segmentation import class_iou, confusion

from ..augment.on_the_fly import OnTheFlyFeatures, device_of, drawn, token_widths
from ..distributed import gathered, mean_over_all
from ..features import FeatureSet, rows_of, tokens_of
from ..nets.gmm import CONTRAST_WEIGHT, GmmHead
from ..nets.segmenter import Segmenter, SegmenterConfig
from .label_grids import MapUpsampler, cell_labels
from .loop import TrainingRun, cross_entropy_sum


def mean_iou(model: Segmenter, features: FeatureSet) -> float:
    """Return the mean IoU over classes that occur, of every second row and column."""
    return float(np.nanmean(confusion_iou(model, features, step=2)))


@torch.no_grad()
def confusion_iou(
    model: Segmenter, features: FeatureSet, step: int = 1
) -> npt.NDArray[np.float64]:
    """Return the IoU of each class at label resolution, NaN where it does not occur."""
    model.eval()
    count = model.classes
    counted = np.zeros((count, count), np.int64)
    upsampler = MapUpsampler(features, model.upsampling, step)
    device = next(model.parameters()).device
    for index in range(len(features.names)):
        logits = model(*tokens_of(features, model.layers, [index], device))
        truth = np.asarray(features.labels[index])[::step, ::step]
        pixels = upsampler(logits)[0].argmax(-1).cpu().numpy()
        counted += confusion(pixels, truth, count)
    return class_iou(counted)


class SegmenterRun(TrainingRun):
    """
    A run on cached or freshly drawn tokens that keeps the best mean IoU on `select`.

    model: to train instead of a new segmenter; anything with its layers, feature and classifier.
    """

    name, together = 'segmenter', True

    def __init__(
        self,
        train: FeatureSet | OnTheFlyFeatures,
        select: FeatureSet,
        layers: Sequence[str],
        classes: int,
        config: SegmenterConfig,
        model: Segmenter | None = None,
    ) -> None:
        self.train, self.select, self.config = train, select, config
        self.device = device_of(train)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = model or Segmenter(layers, token_widths(train, layers), classes, config)
        # a fifth faster on a CPU
        self.model.to(device=self.device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        super().__init__(self.model, len(train.names), config, optimizer)
        self.upsampler = MapUpsampler(train, self.model.upsampling, config.pixel_step)

    def look(self) -> float:
        """Return the mean IoU on the selection."""
        return mean_iou(self.model, self.select)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return cross-entropy over labelled pixels, for a mixture its contrast loss as well."""
        step = self.config.pixel_step
        batch, places = drawn(self.train, indices, self.step)
        tokens = tokens_of(batch, self.model.layers, places, self.device)
        with self.autocast(self.device):
            feature = self.model.feature(*tokens)
        logits = self.model.classifier(feature.float())
        labels = rows_of(batch.labels, places)
        target = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64))
        target = target.to(self.device)
        # as the upsampler lays them out: classes before rows and columns
        pixels = self.upsampler(logits, row, column).permute(0, 3, 1, 2)
        loss = mean_over_all(*cross_entropy_sum(pixels, target))
        if isinstance(self.model.classifier, GmmHead):
            # every second cell along each axis: its neighbours tell the mixture nothing new
            thin = (slice(None), slice(row % 2, None, 2), slice(column % 2, None, 2))
            cells = cell_labels(labels, feature.shape[1:3])[thin].astype(np.int64)
            contrast = self.model.classifier.training_loss(
                gathered(feature[thin].float(), len(indices)).flatten(0, 2),
                gathered(torch.from_numpy(cells).to(self.device), len(indices)).flatten(),
            )
            loss = loss + CONTRAST_WEIGHT * contrast
        return loss
