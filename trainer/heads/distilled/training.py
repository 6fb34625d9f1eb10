# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation: a student and its backbone learn what a teacher says of composed images."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ood_perception.types import UInt8Array

from ...augment.pasting import OUTLIER
from ...backbones.base import Backbone
from ...data.images import IGNORED, ImageList
from ...features import FeatureSet, View, network_image
from ...training.label_grids import cell_labels
from ...training.loop import TrainingRun, cosine
from .config import DistilledConfig
from .model import Student
from .teacher import Teacher

LOG = logging.getLogger(__name__)
BETA = 0.5  # of the smooth L1 loss: within half a deviation it is quadratic
FEATURED = 100
MOST_GRADIENT = 2.0
DARKER, TINT, NOISE, BLUR = 0.3, 0.07, 8.0, 1.5


@dataclass(frozen=True)
class Lessons:
    """
    What is learned from.

    lists: of images, OUTLIER on what was pasted in, each with the teacher's tokens of it. view:
    the student's. normal: ids of the normal classes.
    """

    lists: tuple[tuple[ImageList, FeatureSet], ...]
    view: View
    teacher: Teacher
    normal: tuple[int, ...]
    _composed: dict[int, tuple[UInt8Array, UInt8Array]] = field(default_factory=dict, repr=False)

    def image(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return an image at network size and its labels; kept, a megabyte each."""
        if index not in self._composed:
            (images, _), place = self._of(index)
            self._composed[index] = network_image(images, place, self.view)
        return self._composed[index]

    def tokens(self, index: int, part: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        """Return the teacher's tokens of a part of an image, float32 (rows, columns, D)."""
        (_, features), place = self._of(index)
        layers = [np.asarray(layer[place])[part] for layer in features.tokens.values()]
        return np.concatenate(layers, 2).astype(np.float32)

    def __len__(self) -> int:
        return sum(len(images) for images, _ in self.lists)

    def _of(self, index: int) -> tuple[tuple[ImageList, FeatureSet], int]:
        """Return the list that an image is in, and its place there."""
        for one in self.lists:
            if index < len(one[0]):
                return one, index
            index -= len(one[0])
        raise IndexError(index)


class Drawn(NamedTuple):
    """A crop: uint8 (h, w, 3), its labels (h, w), score (rows, columns), tokens (..., D)."""

    image: UInt8Array
    labels: UInt8Array
    score: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.float32]


class DistillationRun(TrainingRun):
    """
    A run of a student and of the backbone below it, which is tuned in place and left frozen.

    The teacher sees the composed image as it is, the student a crop of it in other light, so that
    what it says does not depend on light and noise.
    """

    name = 'distillation'

    def __init__(
        self, lessons: Lessons, backbone: Backbone, student: Student, config: DistilledConfig
    ) -> None:
        self.lessons, self.backbone, self.student, self.config = lessons, backbone, student, config
        self.other = [i for i in range(student.classes) if i not in lessons.normal]
        rows, columns = config.crop
        size = rows * backbone.patch, columns * backbone.patch
        self.baked = backbone.baked(*size, student.decoder.layers).requires_grad_(True)
        groups = [
            {'params': list(student.parameters())},
            {
                'params': [p for p in self.baked.parameters() if p.requires_grad],
                'times': config.backbone_rate / config.learning_rate,
            },
        ]
        optimizer = torch.optim.AdamW(groups, config.learning_rate, weight_decay=1e-4)
        parts = nn.ModuleDict({'student': student, 'backbone': self.baked})
        parts.to(memory_format=torch.channels_last)
        super().__init__(parts, len(lessons), config, optimizer)

    def rate_factor(self) -> float:
        """Return a linear rise over `warmup` steps times the cosine, down to `final_rate`."""
        rise = min(1.0, (self.step + 1) / max(self.config.warmup, 1))
        return rise * max(cosine(self.step, self.config.steps), self.config.final_rate)

    def _advance(self) -> float:
        """
        Do one step; `best` is the exponential moving average of the weights.

        It generalises better than the last state at a rate that stays up (Izmailov et al., 2018;
        Cha et al., 2021). The first weights, which know nothing yet, leave it sooner.
        """
        loss = super()._advance()
        state = self.trained.state_dict()
        if not self.best:
            self.best = {name: value.detach().clone() for name, value in state.items()}
        share = 1 - min(self.config.ema_decay, self.step / (self.step + 10))
        for name, mean in self.best.items():
            if mean.is_floating_point():
                mean.lerp_(state[name], share)
        return loss

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the loss of a crop of each image; row, column: not used, crops are drawn."""
        with ThreadPoolExecutor(len(indices)) as pool:  # reading waits for the disk
            drawn = list(pool.map(self._draw, indices))
        images, labels, scores, tokens = (np.stack(part) for part in zip(*drawn, strict=True))
        with self.autocast(torch.device('cpu')):
            maps = self.baked(torch.from_numpy(images))
            feature = self.student.decoder(*maps)
            taught = self.student.teacher_tokens(*maps)
        found = self.student.out(feature.float())
        target = torch.from_numpy(cell_labels(labels, found.shape[1:3]).astype(np.int64))
        config, normal = self.config, self.lessons.normal
        taught_score = torch.from_numpy(scores)
        known = np.isin(cell_labels(labels, scores.shape[1:3]), normal)
        wanted = torch.where(
            torch.from_numpy(known), taught_score.clamp(max=config.normal), taught_score
        )
        return (
            score_loss(found[..., 0], wanted)
            + config.tokens * functional.mse_loss(taught.float(), torch.from_numpy(tokens)) / 4
            + config.objects * object_loss(found[..., 0], target, config.margin)
            + config.classes * class_loss(found[..., 1:], target)
            + config.classes
            * elsewhere_loss(found[..., 1:], target, taught_score > config.elsewhere, normal)
            + config.classes
            * elsewhere_loss(found[..., 1:], target, taught_score < config.near, self.other)
        )

    def _descend(self, indices: Sequence[int], row: int, column: int) -> float:
        """Bound the gradient, too; a step whose gradient is not finite changes no weight."""
        loss = super()._descend(indices, row, column)
        size = nn.utils.clip_grad_norm_(self.trained.parameters(), MOST_GRADIENT)
        if not (torch.isfinite(size) and math.isfinite(loss)):
            LOG.warning('%s step %d: no finite gradient, left out', self.name, self.step)
            self.optimizer.zero_grad()
        return loss

    def _draw(self, index: int) -> Drawn:
        """Return a crop of an image and what the teacher says of it."""
        rng = np.random.default_rng((self.config.seed, self.step, index))
        lessons, patch = self.lessons, self.backbone.patch
        image, labels = lessons.image(index)
        rows, columns = self.config.crop
        top = int(rng.integers(lessons.view.height // patch - rows + 1))
        left = int(rng.integers(lessons.view.width // patch - columns + 1))
        part = slice(top, top + rows), slice(left, left + columns)
        tokens = lessons.tokens(index, part)
        pixels = tuple(slice(s.start * patch, s.stop * patch) for s in part)
        crop = Drawn(
            in_other_light(image[pixels], rng),
            labels[pixels],
            lessons.teacher.scores(tokens),
            lessons.teacher.standardised(tokens, self.config.most),
        )
        if rng.random() < 0.5:
            crop = Drawn(*(np.flip(one, 1) for one in crop))
        return crop


@torch.inference_mode()
def normal_features(
    lessons: Lessons, backbone: Backbone, student: Student
) -> npt.NDArray[np.float32]:
    """Return the decoder's feature on normal cells, float32 (N, width), of FEATURED images."""
    baked = backbone.baked(*lessons.view.size, student.decoder.layers)
    found = []
    for index in range(0, len(lessons), max(1, len(lessons) // FEATURED)):
        image, labels = lessons.image(index)
        feature = student.decoder(*baked(torch.from_numpy(image[None])))[0].numpy()
        normal = np.isin(cell_labels(labels[None], feature.shape[:2])[0], lessons.normal)
        found.append(feature[normal])
    return np.concatenate(found)


def score_loss(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the smooth L1 loss of a score (B, f rows, f columns), averaged to the target grid."""
    factor = score.shape[1] // target.shape[1]
    coarse = functional.avg_pool2d(score.unsqueeze(1), factor).squeeze(1)
    return functional.smooth_l1_loss(coarse, target, beta=BETA)


def object_loss(score: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the mean square of what pasted cells lack of the margin, 0 without any."""
    found = score[labels == OUTLIER]
    return functional.relu(margin - found).square().sum() / max(len(found), 1)


def class_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over cells with a class, 0 without any."""
    known = (labels != OUTLIER) & (labels != IGNORED)
    total = functional.cross_entropy(logits[known], labels[known], reduction='sum')
    return total / max(int(known.sum()), 1)


def elsewhere_loss(
    logits: torch.Tensor, labels: torch.Tensor, far: torch.Tensor, normal: Sequence[int]
) -> torch.Tensor:
    """
    Return the mean of -ln(1 - p) over unlabelled cells that the teacher finds far, 0 without any.

    logits: float (B, f rows, f columns, C). far: bool (B, rows, columns). p: of the normal
    classes.
    """
    other = [place for place in range(logits.shape[-1]) if place not in normal]
    factor = logits.shape[1] // far.shape[1]
    fine = far.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    chosen = logits[(labels == IGNORED) & fine]
    if not other or not len(chosen):
        return logits.new_zeros(())
    return (chosen.logsumexp(1) - chosen[:, other].logsumexp(1)).mean()


def in_other_light(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Return uint8 (h, w, 3) with other contrast, light, tint, sharpness and noise."""
    values, mean = image.astype(np.float32), np.float32(image.mean())
    contrast, light = rng.uniform(1 - DARKER, 1 + DARKER, 2).astype(np.float32)
    values = (values - mean) * contrast + mean * light
    values *= rng.uniform(1 - TINT, 1 + TINT, 3).astype(np.float32)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.4, BLUR)))
    if rng.random() < 0.5:
        values += rng.normal(0, rng.uniform(1, NOISE), values.shape).astype(np.float32)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
