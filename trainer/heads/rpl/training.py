# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Training of RPL's block on cached (or fresh) tokens of mixes; the host stays frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import DataError

from ...artifacts import Artifact
from ...augment.on_the_fly import OnTheFlyFeatures, device_of, drawn
from ...distributed import gathered
from ...features import FeatureSet, rows_of, tokens_of
from ...nets.deeplab import scaled_dilations
from ...progress import progress_bar
from ...training.label_grids import (
    SELECTION_STEP,
    MapUpsampler,
    cell_labels,
    need_outliers,
    pasted_precision,
)
from ...training.loop import Trained, TrainingRun
from .block import ResidualBlock, to_feature_grid
from .config import RplConfig
from .losses import contrastive_loss, draw_pools, energy, rpl_loss
from .model import Smoothing

LAST_TIMES = 10.0
"""How much faster the last layer learns (the paper's 10 x)."""
POWER, LEAST_RATE = 0.9, 1e-8
Features = FeatureSet | OnTheFlyFeatures
Frozen = npt.NDArray[np.float16]


@torch.no_grad()
def frozen_features(host: nn.Module, features: FeatureSet, path: Path) -> None:
    """Write the feature of every image, float16 (n, H, W, F): constant while RPL learns."""
    written: Frozen | None = None
    for i in progress_bar(range(len(features.names)), 'frozen features'):
        feature = host.feature(*tokens_of(features, host.layers, [i]))[0].half().numpy()
        if written is None:
            shape = (len(features.names), *feature.shape)
            written = np.lib.format.open_memmap(path, 'w+', np.float16, shape)
        written[i] = feature


def _feature(
    host: nn.Module,
    features: FeatureSet,
    places: Sequence[int],
    frozen: Frozen | None,
    device: torch.device,
) -> torch.Tensor:
    """Return the host's feature float32 (B, H, W, F), computed where it is not kept."""
    if frozen is not None:
        return torch.from_numpy(rows_of(frozen, places)).to(device).float()
    return host.feature(*tokens_of(features, host.layers, places, device)).float()


def _labels(batch: FeatureSet, places: Sequence[int], count: int) -> npt.NDArray[np.uint8]:
    """Return the labels of all processes' images, (count, H, W)."""
    return gathered(torch.from_numpy(rows_of(batch.labels, places)), count).numpy()


class RplRun(TrainingRun):
    """
    A run on mixes that keeps the best AP of the energy on the selection mixes.

    host: see block.Host; it is not changed. train: mixes with labels (OUTLIER, IGNORED or known)
    and the whole everyday images, None = without. select: mixes whose objects are foreign to the
    training's. block: to start from, None = new.
    frozen: frozen_features of both sets of mixes, None = computed whenever they are read.
    """

    name, together = 'rpl', True

    def __init__(
        self,
        host: nn.Module,
        train: tuple[Features, Features | None],
        select: FeatureSet,
        config: RplConfig,
        block: ResidualBlock | None = None,
        frozen: tuple[Frozen | None, Frozen | None] = (None, None),
    ) -> None:
        need_outliers(select)
        self.features, everyday = train
        self.select, (self.frozen, self.judged) = select, frozen
        self.context = everyday if config.contrast and config.context else None
        self.config, self.device = config, device_of(self.features)
        self.host = host.requires_grad_(False).eval().to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            dilations = config.dilations or scaled_dilations(
                self.features.height // self.features.patch
            )
            shape = (host.trunk_width, config.width, host.feature_width, dilations)
            self.block = block or ResidualBlock(*shape)
            _, width, feature_width, _ = self.block.layout
            self.projector = nn.Conv2d(width, feature_width, 1)
        model = nn.ModuleDict({'block': self.block, 'projector': self.projector})
        model.to(self.device)
        last = list(self.block.last.parameters())
        slow = [p for p in model.parameters() if all(p is not own for own in last)]
        groups = [{'params': slow}, {'params': last, 'times': LAST_TIMES}]
        optimizer = torch.optim.AdamW(groups, config.learning_rate, weight_decay=0.0)
        super().__init__(model, len(self.features.names), config, optimizer)
        self.upsampler = MapUpsampler(self.features, host.upsampling, config.pixel_step)

    def fit(self, artifact: Artifact | None = None) -> Trained:
        """Train the block; the projector stays behind: it serves the contrast alone."""
        return replace(super().fit(artifact), model=self.block)

    @torch.no_grad()
    def look(self) -> float:
        """Return the AP of the smoothed energy on the selection, see pasted_precision."""
        host, block, features, device = self.host, self.block, self.select, self.device
        smoothing = Smoothing().to(device)
        fine = MapUpsampler(features, host.upsampling, SELECTION_STEP)
        block.eval()

        def scores(i: int) -> torch.Tensor:
            feature = _feature(host, features, [i], self.judged, device)
            trunk = tokens_of(features, host.layers[-1:], [i], device)[0]
            residual = to_feature_grid(host, block.last(block.embed(trunk)), feature.shape[1:3])
            score = smoothing(energy(host.classifier(feature + residual)))
            return fine(score[..., None])[0, ..., 0]

        return pasted_precision(features, scores)

    def rate_factor(self) -> float:
        """Return the polynomial of power 0.9, not below 1e-8 in all."""
        share = (1 - self.step / self.config.steps) ** POWER
        return max(share, LEAST_RATE / self.config.learning_rate)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return RPL's losses on mixes, and the contrast with everyday images."""
        step, config = self.config.pixel_step, self.config
        batch, places = drawn(self.features, indices, self.step)
        mine, count = len(places), len(indices)
        labels = _labels(batch, places, count)
        with torch.no_grad(), self.autocast(self.device):
            frozen_feature = _feature(self.host, batch, places, self.frozen, self.device)
        trunks = tokens_of(batch, self.host.layers[-1:], places, self.device)
        shown = self._context() if self.context is not None else None
        embedded = self._embedded([*trunks, shown[0]] if shown is not None else trunks)
        size = frozen_feature.shape[1:3]
        residual = to_feature_grid(self.host, self.block.last(embedded[:mine]), size)
        both = frozen_feature, frozen_feature + residual
        frozen, moved = (
            gathered(self.upsampler(self.host.classifier(one), row, column), count).flatten(0, 2)
            for one in both
        )
        pixels = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64)).flatten()
        loss = rpl_loss(
            *(moved, frozen, pixels.to(self.device)),
            *(config.dissimilarity, config.energy_weight),
        )
        if config.contrast:
            known = shown[1] if shown is not None else None
            whole = gathered(embedded[:mine], count)
            if known is not None:
                whole = torch.cat([whole, gathered(embedded[mine:], len(known))])
            loss = loss + config.contrast_weight * self._contrast(whole, labels, known, size)
        if not torch.isfinite(loss):
            raise DataError(
                f'the loss of RPL is {float(loss.detach()):g} at step {self.step}: lower '
                f'rpl.learning_rate ({config.learning_rate:g})'
            )
        return loss

    def _embedded(self, trunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the block's maps; mixes and everyday images share a batch's statistics."""
        with self.autocast(self.device):
            return self.block.embed(torch.cat(list(trunks))).float()

    def _context(self) -> tuple[torch.Tensor, npt.NDArray[np.uint8]]:
        """Draw everyday images: this process's trunks (b, h, w, C) and all labels (B, H, W)."""
        assert self.context is not None
        random = np.random.default_rng((self.config.seed, self.step, 1))
        count = min(self.config.context_batch, len(self.context.names))
        chosen = sorted(int(i) for i in random.choice(len(self.context.names), count, False))
        batch, places = drawn(self.context, chosen, self.step)
        trunk = tokens_of(batch, self.host.layers[-1:], places, self.device)[0]
        return trunk, _labels(batch, places, count)

    def _contrast(
        self,
        embedded: torch.Tensor,
        labels: npt.NDArray[np.uint8],
        context_labels: npt.NDArray[np.uint8] | None,
        size: Sequence[int],
    ) -> torch.Tensor:
        """Return CoroCL on the feature's grid; 0 where a pool is empty."""
        cells = to_feature_grid(self.host, self.projector(embedded), size)
        city = cells[: len(labels)], cell_labels(labels, size)
        context = None
        if context_labels is not None:
            context = cells[len(labels) :], cell_labels(context_labels, size)
        random = np.random.default_rng((self.config.seed, self.step, 2))
        pools = draw_pools(city, context, random, self.config.samples)
        if pools is None:
            return cells.sum() * 0.0
        return contrastive_loss(pools, self.config.temperature)
