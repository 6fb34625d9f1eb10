# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Training of UEM on cached tokens of mixes; everything of the segmenter stays frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ood_perception.errors import DataError
from ood_perception.metrics.pixel import exact_metrics, scored_picture

from ...artifacts import digest
from ...augment.on_the_fly import OnlineFeatures, device_of, drawn, token_widths
from ...augment.pasting import OUTLIER
from ...data.images import IGNORED
from ...features import FeatureSet
from ...nets.fpn import UPSAMPLING
from ...nets.gmm import GmmHead
from ...nets.segmenter import Segmenter
from ...training.label_grids import MapUpsampler, cell_labels, tokens_of
from ...training.loop import TrainingRun
from .config import UemConfig
from .model import Uem, contrast_loss, log_likelihood_ratio, uem_loss

Known = npt.NDArray[np.float16]


@dataclass(frozen=True)
class UemTraining:
    """A trained module; history: (step, mean loss since the last look, AP on the selection)."""

    module: Uem
    best_step: int
    history: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class OnlineOutliers:
    """What an online run trains on: fresh mixes, and the frozen segmenter that judges them."""

    features: OnlineFeatures
    segmenter: Segmenter


@torch.no_grad()
def known_scores(segmenter: Segmenter, features: FeatureSet, progress: bool = True) -> Known:
    """Return max_k F_k of every picture, float16 (n, 4 gh, 4 gw): constant while UEM learns."""
    device, maps = next(segmenter.parameters()).device, []
    pictures = range(len(features.names))
    for i in tqdm(pictures, desc='known scores', unit='picture', disable=not progress):
        tokens = tokens_of(features, segmenter.layers, [i], device)
        # as it was trained
        half = segmenter.config.matmul == 'bf16'
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            feature = segmenter.feature(*tokens)
        logits = segmenter.classifier(feature.float())
        maps.append(logits[0].amax(-1).half().cpu().numpy())
    return np.stack(maps)


def fit_uem(
    train: tuple[FeatureSet, Known] | OnlineOutliers,
    select: tuple[FeatureSet, Known],
    layer: str,
    config: UemConfig,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> UemTraining:
    """
    Train on mixes and keep the state with the best AP of the LLR on the selection mixes.

    train, select: features with labels (OUTLIER, IGNORED or a known class) and their known_scores;
    the selection's objects are foreign to the training's; or fresh mixes in every step.
    layer: of the last tokens.
    checkpoint: a file to resume from, written at every look. The same seed gives the same module
    on one machine, resumed or not.
    """
    if not any((np.asarray(select[0].labels[i]) == OUTLIER).any() for i in range(len(select[1]))):
        raise DataError('no selection mix holds an outlier: draw more, or raise the probability')
    run = _Run(train, layer, config)
    parts = [run.features.key, select[0].key, select[0].names, layer, asdict(config)]
    parts.append('run 2')  # of checkpoints
    key = digest([*parts, run.known_key()])

    def look() -> float:
        return average_precision(run.module, *select, layer)

    best_step = run.fit('uem', look, checkpoint, key, progress)
    return UemTraining(run.module.cpu().eval(), best_step, tuple(run.history))


@torch.no_grad()
def average_precision(module: Uem, features: FeatureSet, known: Known, layer: str) -> float:
    """Return the AP of the LLR against pasted pixels, every third row and column."""
    module.eval()
    coarse, fine = (MapUpsampler(features, factor, 3) for factor in (1, UPSAMPLING))
    pictures, device = [], next(module.parameters()).device
    for i in range(len(features.names)):
        scores = coarse(module(tokens_of(features, [layer], [i], device)[0]))[0].cpu()
        constant = fine(torch.from_numpy(known[i : i + 1]).float()[..., None])[0, ..., 0]
        ratio = log_likelihood_ratio(scores[..., 1], scores[..., 0], constant).numpy()
        labels = np.asarray(features.labels[i])[::3, ::3]
        truth = np.where(labels == OUTLIER, 1, np.where(labels == IGNORED, 255, 0))
        pictures.append(scored_picture(ratio.astype(np.float32), truth.astype(np.uint8)))
    return float(exact_metrics(pictures).average_precision)


class _Run(TrainingRun):
    """A run of a module."""

    def __init__(
        self, train: tuple[FeatureSet, Known] | OnlineOutliers, layer: str, config: UemConfig
    ) -> None:
        self.features: FeatureSet | OnlineFeatures
        if isinstance(train, OnlineOutliers):
            self.features, self.known = train.features, None
            self.segmenter = train.segmenter.to(train.features.device)
        else:
            self.features, self.known = train
        self.layer, self.config, self.device = layer, config, device_of(self.features)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module = Uem(token_widths(self.features, [layer])[0], config)
        self.module.to(self.device)
        super().__init__(self.module, len(self.features.names), config, weight_decay=0.0)
        self.coarse = MapUpsampler(self.features, 1, config.pixel_step)
        self.fine = MapUpsampler(self.features, UPSAMPLING, config.pixel_step)

    def head(self) -> torch.nn.Module:
        """Return the module's two-class head."""
        return self.module.head

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return UEM's loss on mixes, for a generative head its contrast loss as well."""
        step = self.config.pixel_step
        batch, places = drawn(self.features, indices, self.step)
        labels = np.stack([batch.labels[i] for i in places])
        tokens = tokens_of(batch, [self.layer], places, self.device)[0]
        bf16 = self.config.matmul == 'bf16'
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            projected = self.module.projection(tokens)
        projected = projected.float()
        scores = self.coarse(self.module.head(projected), row, column).flatten(0, 2)
        maps = known_scores(self.segmenter, batch, False) if self.known is None else self.known
        constant = torch.from_numpy(np.stack([maps[i] for i in places])).to(self.device).float()
        known = self.fine(constant[..., None], row, column).flatten()
        pixels = torch.from_numpy(labels[:, row::step, column::step].astype(np.int64)).flatten()
        pixels = pixels.to(self.device)
        scored = pixels != IGNORED
        truth = (pixels == OUTLIER).long()
        loss = uem_loss(scores[scored], known[scored], truth[scored], self.config.own_weight)
        if not isinstance(self.module.head, GmmHead):
            return loss
        cells = torch.from_numpy(cell_labels(labels, projected.shape[1:3]).astype(np.int64))
        two = torch.where(cells == IGNORED, IGNORED, (cells == OUTLIER).long()).to(self.device)
        return loss + contrast_loss(self.module, projected, two)

    def known_key(self) -> str:
        """Return a hash of what the constant of the ratio comes from."""
        if self.known is not None:
            return _digest(self.known)
        weights = [value.cpu().numpy().tobytes() for value in self.segmenter.state_dict().values()]
        return hashlib.sha256(b''.join(weights)).hexdigest()


def _digest(known: Known) -> str:
    return hashlib.sha256(np.ascontiguousarray(known)).hexdigest()
