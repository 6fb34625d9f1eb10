# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Training of UEM on cached tokens of mixes; everything of the segmenter stays frozen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ...augment.on_the_fly import OnTheFlyFeatures, device_of, drawn, token_widths
from ...augment.pasting import OUTLIER
from ...data.images import IGNORED
from ...distributed import gathered
from ...features import FeatureSet, rows_of, tokens_of
from ...nets.gmm import GmmHead
from ...nets.segmenter import UPSAMPLING, Segmenter
from ...progress import progress_bar
from ...training.label_grids import (
    SELECTION_STEP,
    MapUpsampler,
    cell_labels,
    need_outliers,
    pasted_precision,
)
from ...training.loop import TrainingRun
from .config import UemConfig
from .model import Uem, contrast_loss, log_likelihood_ratio, uem_loss

Known = npt.NDArray[np.float16]


@torch.no_grad()
def known_scores(segmenter: Segmenter, features: FeatureSet) -> Known:
    """Return max_k F_k of every image, float16 (n, 4 gh, 4 gw): constant while UEM learns."""
    device, maps = next(segmenter.parameters()).device, []
    for i in progress_bar(range(len(features.names)), 'known scores'):
        tokens = tokens_of(features, segmenter.layers, [i], device)
        # as it was trained
        half = segmenter.config.matmul == 'bf16'
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            feature = segmenter.feature(*tokens)
        logits = segmenter.classifier(feature.float())
        maps.append(logits[0].amax(-1).half().cpu().numpy())
    return np.stack(maps)


@torch.no_grad()
def average_precision(module: Uem, features: FeatureSet, known: Known, layer: str) -> float:
    """Return the AP of the LLR on mixes, see pasted_precision."""
    module.eval()
    coarse, fine = (MapUpsampler(features, factor, SELECTION_STEP) for factor in (1, UPSAMPLING))
    device = next(module.parameters()).device

    def scores(i: int) -> torch.Tensor:
        own = coarse(module(tokens_of(features, [layer], [i], device)[0]))[0].cpu()
        constant = fine(torch.from_numpy(known[i : i + 1]).float()[..., None])[0, ..., 0]
        return log_likelihood_ratio(own[..., 1], own[..., 0], constant)

    return pasted_precision(features, scores)


class UemRun(TrainingRun):
    """
    A run on mixes that keeps the best AP of the LLR on the selection mixes.

    train, select: features with labels (OUTLIER, IGNORED or a known class) and their known_scores;
    the selection's objects are foreign to the training's. Fresh mixes come with the segmenter.
    layer: of the last tokens.
    """

    name, together = 'uem', True

    def __init__(
        self,
        train: tuple[FeatureSet | OnTheFlyFeatures, Known | Segmenter],
        select: tuple[FeatureSet, Known],
        layer: str,
        config: UemConfig,
    ) -> None:
        need_outliers(select[0])
        self.select = select
        self.features, self.known = train
        self.layer, self.config, self.device = layer, config, device_of(self.features)
        if isinstance(self.known, Segmenter):
            self.known.to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module = Uem(token_widths(self.features, [layer])[0], config)
        self.module.to(self.device)
        optimizer = torch.optim.AdamW(
            self.module.parameters(), config.learning_rate, weight_decay=0.0
        )
        super().__init__(self.module, len(self.features.names), config, optimizer)
        self.coarse = MapUpsampler(self.features, 1, config.pixel_step)
        self.fine = MapUpsampler(self.features, UPSAMPLING, config.pixel_step)

    def look(self) -> float:
        """Return the AP on the selection."""
        return average_precision(self.module, *self.select, self.layer)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return UEM's loss on mixes, for a generative head its contrast loss as well."""
        step, count = self.config.pixel_step, len(indices)
        batch, places = drawn(self.features, indices, self.step)
        labels = rows_of(batch.labels, places)
        tokens = tokens_of(batch, [self.layer], places, self.device)[0]
        with self.autocast(self.device):
            projected = self.module.projection(tokens)
        projected = projected.float()
        scores = self.coarse(self.module.head(projected), row, column)
        scores = gathered(scores, count).flatten(0, 2)
        fresh = isinstance(self.known, Segmenter)
        maps = known_scores(self.known, batch) if fresh else self.known
        constant = torch.from_numpy(rows_of(maps, places)).to(self.device).float()
        known = gathered(self.fine(constant[..., None], row, column), count).flatten()
        labels = gathered(torch.from_numpy(labels), count).numpy()
        pixels = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64)).flatten()
        pixels = pixels.to(self.device)
        scored = pixels != IGNORED
        truth = (pixels == OUTLIER).long()
        loss = uem_loss(scores[scored], known[scored], truth[scored], self.config.own_weight)
        if not isinstance(self.module.head, GmmHead):
            return loss
        cells = torch.from_numpy(cell_labels(labels, projected.shape[1:3]).astype(np.int64))
        two = torch.where(cells == IGNORED, IGNORED, (cells == OUTLIER).long()).to(self.device)
        return loss + contrast_loss(self.module, gathered(projected, count), two)
