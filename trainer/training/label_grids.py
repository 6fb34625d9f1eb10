# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Between the grids of tokens and maps and the pixels of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import DataError
from ood_perception.metrics.pixel import exact_metrics, scored_image

from ..augment.on_the_fly import OnTheFlyFeatures
from ..augment.pasting import OUTLIER
from ..data.images import IGNORED
from ..features import FeatureSet
from ..nets.patch_classifier import Sized, Upsampler


class MapUpsampler(Upsampler):
    """An Upsampler of maps of many channels, from the first pixel on unless told otherwise."""

    def __init__(
        self, features: FeatureSet | OnTheFlyFeatures | Sized, factor: int, step: int = 1
    ) -> None:
        super().__init__(features, step, factor)

    def __call__(self, maps: torch.Tensor, row: int = 0, column: int = 0) -> torch.Tensor:
        """Return (B, rows, columns, C) of (B, f gh, f gw, C), from pixel (row, column) on."""
        rows, columns = self.rows[row :: self.step], self.columns[column :: self.step]
        rows, columns = rows.to(maps.device), columns.to(maps.device)
        batch, high, wide, channels = maps.shape
        # channels first: two products of large matrices, not thousands of narrow ones
        broad = maps.permute(0, 3, 1, 2).reshape(-1, wide) @ columns.T
        full = torch.matmul(rows, broad.reshape(batch * channels, high, len(columns)))
        return full.reshape(batch, channels, len(rows), len(columns)).permute(0, 2, 3, 1)


def cell_labels(labels: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the labels at the centres of a grid of cells, (B, rows, columns)."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * (pixels / cells)).astype(np.int64)
        for cells, pixels in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows][:, :, columns]


SELECTION_STEP = 3
"""Rows and columns from one pixel to the next where a selection is measured."""


def pasted_precision(features: FeatureSet, scores: Callable[[int], torch.Tensor]) -> float:
    """
    Return the AP of scores against pasted pixels, every SELECTION_STEP-th row and column.

    features: the labels, OUTLIER on pasted pixels. scores: of an image by its place, float (rows,
    columns) at these pixels, higher = more anomalous.
    """
    step, images = SELECTION_STEP, []
    for index in range(len(features.names)):
        pixels = scores(index).cpu().numpy().astype(np.float32)
        labels = np.asarray(features.labels[index])[::step, ::step]
        truth = np.where(labels == OUTLIER, 1, np.where(labels == IGNORED, 255, 0))
        images.append(scored_image(pixels, truth.astype(np.uint8)))
    return float(exact_metrics(images).average_precision)


def need_outliers(features: FeatureSet) -> None:
    """Raise DataError for selection mixes without any pasted pixel."""
    if not any((np.asarray(labels) == OUTLIER).any() for labels in features.labels):
        raise DataError('no selection mix holds an outlier: draw more, or raise the probability')
