# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The published DeepLabV3+ with WiderResNet38 as one network, and its checkpoint's names.

The checkpoint is yours to get; what is known of its names is in _RENAMES. Nothing is taken on
trust: a tensor that is missing, left over or of another shape is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

from ood_perception.errors import DataError

from ..backbones.wide_resnet import STAGES, WideResNet38
from .deeplab import DeepLabHost, DeepLabShape

_RENAMES = (
    (r'^module\.', ''),
    (r'^mod1\.conv1\.', 'trunk.stem.'),
    (r'\.convs\.conv(\d)\.', lambda m: f'.convs.{int(m[1]) - 1}.'),
    (r'\.bn1\.0\.', '.norms.0.'),
    (r'\.convs\.bn(\d)\.0\.', lambda m: f'.norms.{int(m[1]) - 1}.'),
    (r'\.proj_conv\.', '.project.'),
    (
        r'^mod(\d)\.block(\d+)\.',
        lambda m: f'trunk.stages.{int(m[1]) - 2}.{int(m[2]) - 1}.',
    ),
    (r'^aspp\.img_conv\.', 'host.aspp.pooled.'),
    (r'^aspp\.features\.', 'host.aspp.branches.'),
    (r'^bot_aspp\.', 'host.reduce.'),
    (r'^bot_fine\.', 'host.project.'),
    (r'^final\.', 'host.classifier.layers.'),
)


class PublishedHost(nn.Module):
    """
    Trunk and decoder.

    divisor: of all of the trunk's channels, width: of the decoder; 1 and 256 as published.
    """

    def __init__(
        self, classes: int = 19, divisor: int = 1, width: int = 256, fine_width: int = 48
    ) -> None:
        super().__init__()
        fine, trunk = (STAGES[i][1][-1] // divisor for i in (0, -1))
        self.trunk = WideResNet38(divisor)
        self.host = DeepLabHost(DeepLabShape(trunk, fine, 4, classes, width, fine_width))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map float (B, 3, h, w), ImageNet's normalisation, to logits (B, h/2, w/2, K)."""
        logits: torch.Tensor = self.host(*self.trunk(image))
        return logits

    def load_published(self, state: Mapping[str, torch.Tensor]) -> None:
        """Fill the network from a checkpoint's tensors; DataError names what does not fit."""
        renamed = {host_name(name): value for name, value in state.items()}
        own = self.state_dict()
        counters = [n for n in own if n.endswith('num_batches_tracked')]
        missing = sorted(set(own) - set(renamed) - set(counters))
        unknown = sorted(set(renamed) - set(own))
        wrong = [
            f'{name} is {tuple(value.shape)}, expected {tuple(own[name].shape)}'
            for name, value in renamed.items()
            if name in own and value.shape != own[name].shape
        ]
        if missing or unknown or wrong:
            raise DataError(
                f'no published DeepLabV3+ of this size: missing {missing[:3]} ({len(missing)}), '
                f'unknown {unknown[:3]} ({len(unknown)}), {wrong[:3]} ({len(wrong)} shapes)'
            )
        self.load_state_dict({**{n: own[n] for n in counters}, **renamed})


def host_name(name: str) -> str:
    """Return our name of a published tensor."""
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name
