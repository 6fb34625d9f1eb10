# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Atrous spatial pyramid pooling (DeepLabV3, Chen et al.): one map seen at several reaches.

RPL's block and the DeepLabV3+ hosts share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

DILATIONS = (12, 24, 36)
BRANCHES = 5
"""What is concatenated: image pooling, 1x1, and one 3x3 a dilation."""
REFERENCE_ROWS = 128
"""Rows of the grid that DILATIONS are meant for: 1024 pixels at stride 8."""


class Aspp(nn.Module):
    """
    Image pooling, 1x1 and three dilated 3x3, each conv-BatchNorm-ReLU, concatenated in this order.

    dim: channels that come in. width: of each branch, 5 width come out.
    """

    def __init__(self, dim: int, width: int, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        if len(dilations) != BRANCHES - 2:
            raise ValueError(f'{BRANCHES - 2} dilations are needed, not {list(dilations)}')
        self.pooled = conv_norm(dim, width)
        self.branches = nn.ModuleList(
            [conv_norm(dim, width), *(conv_norm(dim, width, 3, rate) for rate in dilations)]
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (B, dim, h, w) to (B, 5 width, h, w)."""
        pooled = self.pooled(values.mean((2, 3), keepdim=True)).expand(-1, -1, *values.shape[2:])
        return torch.cat([pooled, *(branch(values) for branch in self.branches)], 1)


def conv_norm(dim: int, width: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return convolution without bias, BatchNorm and ReLU; the size stays."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(dim, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def scaled_dilations(rows: int) -> tuple[int, ...]:
    """
    Return the dilations that reach as far over a picture on a grid of so many rows.

    12, 24 and 36 cells of 128 rows are 9, 19 and 28 % of a picture's height: 3, 5 and 8 cells of
    27 rows.
    """
    return tuple(max(1, int(rate * rows / REFERENCE_ROWS + 0.5)) for rate in DILATIONS)
