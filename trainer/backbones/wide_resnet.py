# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
WiderResNet38 (Wu et al. 2016) as the trunk of the published host: output stride 8, 4096 channels.

Pre-activated residual blocks in six stages; the last three are dilated by 2, 4 and 4 instead of
striding. The fine map is the first stage's, at stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

STAGES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (3, (128, 128)),
    (3, (256, 256)),
    (6, (512, 512)),
    (3, (512, 1024)),
    (1, (512, 1024, 2048)),
    (1, (1024, 2048, 4096)),
)
"""Blocks of each stage, and the channels behind each convolution of a block."""
STRIDES, DILATIONS = (1, 1, 2, 1, 1, 1), (1, 1, 1, 2, 4, 4)
STEM = 64


class WideResNet38(nn.Module):
    """
    The trunk.

    divisor: of every number of channels, 1 = as published; tests take a narrow one.
    """

    def __init__(self, divisor: int = 1) -> None:
        super().__init__()
        width = STEM // divisor
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        stages = []
        for (count, channels), stride, rate in zip(STAGES, STRIDES, DILATIONS, strict=True):
            blocks = []
            for index in range(count):
                sizes = [size // divisor for size in channels]
                blocks.append(_Block(width, sizes, 1 if index else stride, rate))
                width = sizes[-1]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return (fine, trunk), channels last: (B, h/2, w/2, 128) and (B, h/8, w/8, 4096).

        image: float (B, 3, h, w), normalised as ImageNet's; h and w multiples of 8.
        """
        values, fine = self.stem(image), None
        for index, stage in enumerate(self.stages):
            if index < 2:
                values = functional.max_pool2d(values, 3, 2, 1)
            values = stage(values)
            fine = values if fine is None else fine
        assert fine is not None
        return fine.permute(0, 2, 3, 1), values.permute(0, 2, 3, 1)


class _Block(nn.Module):
    """Norm and ReLU before every convolution; 3x3 twice, or 1x1, 3x3, 1x1."""

    def __init__(self, dim: int, channels: Sequence[int], stride: int, dilation: int) -> None:
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        widths = (dim, *channels)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in widths[:-1]])
        self.convs = nn.ModuleList()
        for index, kernel in enumerate(kernels):
            rate = dilation if kernel == 3 else 1
            self.convs.append(
                nn.Conv2d(
                    *(widths[index], widths[index + 1], kernel, 1 if index else stride),
                    *(rate * (kernel // 2), rate),
                    bias=False,
                )
            )
        changes = stride != 1 or dim != channels[-1]
        self.project = nn.Conv2d(dim, channels[-1], 1, stride, bias=False) if changes else None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.norms[0](values))
        shortcut = values if self.project is None else self.project(active)
        for index, conv in enumerate(self.convs):
            active = conv(active if not index else functional.relu(self.norms[index](active)))
        return shortcut + active
