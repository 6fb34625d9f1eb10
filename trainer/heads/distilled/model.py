# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The student: a light decoder over a convolutional backbone, and the head that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ...artifacts import load_network, save_network
from ...calibration.monotone_curve import CalibrationCurve
from ..calibrated import OneScoreHead
from .teacher import LEAST_DISTANCE, Teacher

REACH, SPREAD = 5, 4
"""Kernel and dilation of the convolution that gives context: 17 cells across."""


class StudentDecoder(nn.Module):
    """
    Backbone maps to one feature on the finest map's grid.

    layers: names, the finest first; the others are on one grid, `factor` times as coarse. widths:
    of each. width: of the feature.
    """

    def __init__(
        self, layers: Sequence[str], widths: Sequence[int], width: int, factor: int
    ) -> None:
        super().__init__()
        self.layers, self.widths, self.width, self.factor = tuple(layers), widths, width, factor
        self.lateral = nn.ModuleList([nn.Conv2d(dim, width, 1) for dim in widths])
        margin = REACH // 2 * SPREAD
        self.context = nn.Sequential(
            nn.Conv2d(width, width, REACH, 1, margin, SPREAD, groups=width),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
        )
        self.smooth = nn.ModuleList([_separable(width) for _ in range(2)])

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to the feature (B, factor gh, factor gw, width)."""
        fine, *coarse = (
            lateral(layer.permute(0, 3, 1, 2))
            for lateral, layer in zip(self.lateral, tokens, strict=True)
        )
        total = coarse[0]
        for one in coarse[1:]:
            total = total + one
        total = functional.relu(total)
        total = total + self._context(total)
        size = [self.factor * side for side in total.shape[2:]]
        wide = functional.interpolate(total, size, mode='bilinear', align_corners=False)
        feature = functional.relu(wide + fine)
        for layer in self.smooth:
            feature = feature + layer(feature)
        return feature.permute(0, 2, 3, 1)

    def _context(self, total: torch.Tensor) -> torch.Tensor:
        """
        Return the context of a map, float32 while it trains.

        On a CPU the weight gradient of a dilated convolution by channel holds what the memory
        held before, in bfloat16 with the channels last: infinities, and wrong numbers unseen.
        """
        if not self.training:
            return self.context(total)
        with torch.autocast(total.device.type, enabled=False):
            return self.context(total.float())


def _separable(width: int) -> nn.Sequential:
    """3x3 a channel, then 1x1, ReLU."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU()
    )


class Student(nn.Module):
    """
    Decoder and what reads its feature.

    out: the score, then a logit a class. teacher: the coarse layers side by side to the teacher's
    tokens; it is needed in training alone.
    """

    def __init__(
        self,
        layers: Sequence[str],
        widths: Sequence[int],
        width: int,
        factor: int,
        classes: int,
        teacher: int = 0,
    ) -> None:
        super().__init__()
        self.decoder = StudentDecoder(layers, widths, width, factor)
        self.out = nn.Linear(width, 1 + classes)
        self.classes = classes
        self.teacher = nn.Linear(sum(widths), teacher) if teacher else None

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to score and logits (B, f gh, f gw, 1 + C)."""
        result: torch.Tensor = self.out(self.decoder(*tokens).float())
        return result

    def teacher_tokens(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return what the teacher's tokens are thought to be, (B, gh, gw, D), of the same maps."""
        assert self.teacher is not None
        fine = functional.avg_pool2d(tokens[0].permute(0, 3, 1, 2), self.decoder.factor)
        side_by_side = torch.cat([fine.permute(0, 2, 3, 1), *tokens[1:]], 3)
        result: torch.Tensor = self.teacher(side_by_side)
        return result


def save_student(path: Path, student: Student) -> None:
    """Write a student without what training alone needs."""
    decoder, student.teacher = student.decoder, None
    shape = (decoder.layers, decoder.widths, decoder.width, decoder.factor, student.classes)
    save_network(path, student, 'student', shape)


def load_student(path: Path) -> Student:
    """Read what save_student wrote; DataError where it is something else."""
    return load_network(path, 'student', lambda shape: Student(*shape))


class DistanceScore(nn.Module):
    """Teacher.scores as a graph."""

    mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, fit: Teacher) -> None:
        super().__init__()
        self.center, self.scale = fit.center, fit.scale
        self.register_buffer('mean', torch.from_numpy(fit.mean))
        self.register_buffer('whitening', torch.from_numpy(fit.whitening))

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Return the score, float (...,), of a feature (..., D)."""
        whitened = (feature - self.mean) @ self.whitening
        distance = (whitened * whitened).sum(-1).clamp(min=LEAST_DISTANCE)
        return (torch.log(distance) - self.center) / self.scale


class DistilledHead(OneScoreHead):
    """
    The student as a head: decoder stage, then score and labels in float32.

    The score is what the student learned from the teacher plus the distance of its own feature to
    the normal one, both in deviations on normal cells: the first knows the small, the second what
    no lesson showed.
    """

    head_inputs = ('features',)

    def __init__(
        self,
        student: Student,
        distance: Teacher,
        classes: Sequence[str],
        curve: CalibrationCurve | None = None,
    ) -> None:
        super().__init__('distilled', student.decoder.layers, classes, student.decoder.factor)
        self.decoder, self.out = student.decoder, student.out
        self.distance = DistanceScore(distance)
        self.finish(curve)

    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (score, labels) of the decoder's feature."""
        values: torch.Tensor = self.out(inputs[0])
        score = values[..., 0] + self.distance(inputs[0])
        return score, values[..., 1:].argmax(3).to(torch.uint8)
