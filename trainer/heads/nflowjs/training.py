# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Joint training of segmenter and flow (NFlowJS, section 3): L = L_gen + CE + lambda JSD.

The backbone works in every step. Its weights stay unless backbone_rate says otherwise; the
gradient passes through it to the pasted pixels and so to the flow. A patch is a plain rectangle
without any blending, pasted before any normalisation, and all of it is OUTLIER, void below it
included; no border around it is ignored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ood_perception.types import UInt8Array

from ...artifacts import Artifact
from ...augment.on_the_fly import Crops, OnTheFlySettings
from ...augment.pasting import OUTLIER
from ...backbones.base import Backbone, parse_layer
from ...data.images import ImageList
from ...features import FeatureSet, View, network_image, tokens_of
from ...nets.patch_classifier import Sized
from ...nets.segmenter import UPSAMPLING, Segmenter
from ...training.label_grids import (
    SELECTION_STEP,
    MapUpsampler,
    pasted_precision,
)
from ...training.loop import Trained, TrainingRun, cosine, rate_factor
from .config import NflowjsConfig
from .flow import STRIDE, Flow
from .flow.training import seeded_torch
from .model import anomaly_score, nflowjs_loss

Corners = Sequence[tuple[int, int]]
Tokens = list[torch.Tensor]


def patch_sides(crop: tuple[int, int], smallest: int, largest: int, reference: int) -> list[int]:
    """
    Return the sides that a patch may have: multiples of STRIDE, at least one.

    smallest, largest: pixels where the crop's shorter side is `reference`; in proportion to it
    otherwise, rounded to the nearest multiple. The published law is 16 to 216 at 768.
    """
    shorter = min(crop)
    first, last = (
        max(1, round(side * shorter / reference / STRIDE)) for side in (smallest, largest)
    )
    last = min(last, shorter // STRIDE)
    return [STRIDE * count for count in range(min(first, last), last + 1)]


def draw_places(
    images: UInt8Array, sides: Sequence[int], rng: np.random.Generator
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """
    Return one size (rows, columns) for a batch and a uniformly random corner in each image.

    images: uint8 (B, h, w, 3), padded with black right and below; corners keep the patch inside
    the image where it is large enough.
    """
    rows, columns = (int(rng.choice(sides)) for _ in range(2))
    corners = []
    for image in images:
        shown = image.any(axis=2)
        height, width = (
            int(np.flatnonzero(shown.any(axis=axis))[-1]) + 1 if shown.any() else side
            for axis, side in ((1, image.shape[0]), (0, image.shape[1]))
        )
        top = int(rng.integers(max(height - rows, 0) + 1))
        left = int(rng.integers(max(width - columns, 0) + 1))
        corners.append((top, left))
    return (rows, columns), corners


def cut(images: torch.Tensor, corners: Corners, size: tuple[int, int]) -> torch.Tensor:
    """Return what patches of a size would cover, (B, 3, rows, columns) of (B, h, w, 3)."""
    rows, columns = size
    parts = [
        image[top : top + rows, left : left + columns]
        for image, (top, left) in zip(images, corners, strict=True)
    ]
    return torch.stack(parts).permute(0, 3, 1, 2)


def paste(
    images: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor, corners: Corners
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return images and labels with a patch in each; the gradient passes to the patches.

    images: float (B, h, w, 3) RGB, 0 to 255. labels: (B, h, w). patches: float (B, 3, rows,
    columns) in the same units. corners: first row and column of each.
    """
    mixed, truth = images.clone(), labels.clone()
    rows, columns = patches.shape[2:]
    for index, (top, left) in enumerate(corners):
        place = (index, slice(top, top + rows), slice(left, left + columns))
        mixed[place] = patches[index].permute(1, 2, 0)
        truth[place] = OUTLIER
    return mixed, truth


@dataclass(frozen=True)
class Start:
    """What a joint run begins with; it is changed in place and is the result as well."""

    segmenter: Segmenter
    flow: Flow
    backbone: Backbone


@dataclass(frozen=True)
class Selection:
    """
    Mixes with objects that no training sees.

    features: their labels and tokens; images, view: the same, to run a tuned backbone on.
    """

    features: FeatureSet
    images: ImageList
    view: View


class JointRun(TrainingRun):
    """
    A run of segmenter, flow and, where it is tuned, backbone.

    It keeps the state with the best AP on the selection.
    """

    name = 'nflowjs'

    def __init__(
        self, start: Start, train: Crops, select: Selection, config: NflowjsConfig
    ) -> None:
        self.start, self.crops, self.select, self.config = start, train, select, config
        self.device = OnTheFlySettings(device=config.device).place
        self.segmenter, self.flow = start.segmenter.to(self.device), start.flow.to(self.device)
        for part in (self.segmenter, self.flow):
            part.requires_grad_(True)
        blocks = [parse_layer(layer)[1] for layer in self.segmenter.layers]
        backbone = start.backbone
        if self.device.type != 'cpu' and not config.backbone_rate:
            # a copy of its own: whoever else uses the frozen backbone expects it on the CPU
            backbone = copy.deepcopy(backbone)
        self.backbone = backbone.to(self.device)
        self.baked = self.backbone.baked(*config.crop, blocks)
        parts: dict[str, nn.Module] = {'segmenter': self.segmenter, 'flow': self.flow}
        if config.backbone_rate:
            parts['backbone'] = self.baked.requires_grad_(True)
        rates = {'flow': config.flow_rate, 'backbone': config.backbone_rate}
        groups = [
            {
                'params': list(part.parameters()),
                'times': rates.get(name, config.learning_rate) / config.learning_rate,
            }
            for name, part in parts.items()
        ]
        optimizer = torch.optim.Adam(groups, config.learning_rate)
        super().__init__(nn.ModuleDict(parts), len(train.images), config, optimizer)
        shape = Sized(*config.crop, self.backbone.patch)
        self.upsampler = MapUpsampler(shape, UPSAMPLING, config.pixel_step)
        self.sides = patch_sides(config.crop, config.smallest, config.largest, config.reference)

    def fit(self, artifact: Artifact | None = None) -> Trained:
        """Train, see TrainingRun.fit, and bring everything back to the CPU, frozen."""
        done = super().fit(artifact)
        for part in (self.start.segmenter, self.start.flow, self.start.backbone):
            part.to(device='cpu').requires_grad_(False).eval()
        return replace(done, model=self.start)

    def rate_factor(self) -> float:
        """Return the share of the learning rates at the step."""
        config = self.config
        if not config.cosine or self.step < config.warmup:
            return rate_factor(self.step, config.steps, config.warmup)
        return cosine(self.step, config.steps)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the loss of fresh crops; of the labels every pixel_step-th row and column."""
        config, rng = self.config, np.random.default_rng((self.config.seed, self.step, 2))
        drawn = [self.crops.draw(index, rng) for index in indices]
        images = np.stack([image for image, _ in drawn])
        pixels = torch.from_numpy(images).to(self.device).float()
        labels = torch.from_numpy(np.stack([label for _, label in drawn])).to(self.device)
        bits: torch.Tensor | float = 0.0
        if config.negatives == 'flow':
            size, corners = draw_places(images, self.sides, rng)
            with seeded_torch(config.seed, self.step):
                bits = self.flow.bits_per_dimension(cut(pixels, corners, size)).mean()
                patches = self.flow.sample(len(images), *size)
            pixels, labels = paste(pixels, labels, patches, corners)
        # BatchNorm keeps the statistics of whole images: crops are few
        self.segmenter.eval()
        fine = self.upsampler(self.logits(self.baked, pixels), row, column).flatten(0, 2)
        step = config.pixel_step
        truth = labels[:, row::step, column::step].flatten().long()
        return nflowjs_loss(fine, truth, config.loss, config.weight) + bits

    def logits(self, baked: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, 4 gh, 4 gw, C) of pixels (B, h, w, 3), 0 to 255."""
        with self.autocast(self.device):
            feature = self.segmenter.feature(*baked(pixels))
        return self.segmenter.classifier(feature.float())

    @torch.no_grad()
    def look(self) -> float:
        """Return the AP of the default score against the selection's pasted pixels."""
        self.segmenter.eval()
        select = self.select
        features, layers = select.features, self.segmenter.layers
        if not self.config.backbone_rate:
            return average_precision(
                self.segmenter, features, lambda i: tokens_of(features, layers, [i], self.device)
            )
        blocks = [parse_layer(layer)[1] for layer in layers]
        baked = self.backbone.baked(*select.view.size, blocks)

        def tokens(index: int) -> Tokens:
            image, _ = network_image(select.images, index, select.view)
            return list(baked(torch.from_numpy(image[None]).to(self.device)))

        return average_precision(self.segmenter, features, tokens)


@torch.no_grad()
def average_precision(
    segmenter: Segmenter, features: FeatureSet, tokens: Callable[[int], Tokens]
) -> float:
    """Return the AP of -JSD at temperature 2 on mixes; tokens: of an image by its place."""
    default, upsampler = NflowjsConfig(), MapUpsampler(features, UPSAMPLING, SELECTION_STEP)

    def scores(index: int) -> torch.Tensor:
        logits = segmenter(*(layer.float() for layer in tokens(index)))
        score = anomaly_score(logits, default.score, default.temperature)
        return upsampler(score[..., None])[0, ..., 0]

    return pasted_precision(features, scores)


def trained_part(config: NflowjsConfig) -> NflowjsConfig:
    """Return a configuration without what is only served."""
    default = NflowjsConfig()
    return replace(config, score=default.score, temperature=default.temperature)
