# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL's residual block, what it needs of the frozen network that it sits on, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from ...artifacts import load_network, save_network
from ...nets.deeplab import BRANCHES, Aspp, DeepLabHost


class Host(Protocol):
    """
    A frozen closed-set network that RPL can sit on; the trunk is the last of its inputs.

    layers: names of its inputs. classifier: feature (B, H, W, F) to logits (B, H, W, K).
    upsampling: H / h of the trunk's grid; align_corners: how. feature: of float (B, h, w, C) per
    layer, (B, H, W, F). trunk_width, feature_width: C of the trunk, F.
    """

    align_corners: bool
    trunk_width: int
    feature_width: int
    layers: tuple[str, ...]
    upsampling: int
    classifier: nn.Module

    def feature(self, *tokens: torch.Tensor) -> torch.Tensor: ...


class ResidualBlock(nn.Module):
    """
    The block f: ASPP, 1x1 to `width`, 1x1 to the classifier's input; all convolutions Kaiming.

    dim: channels of the trunk. feature_width: of the feature that enters the classifier.
    """

    def __init__(self, dim: int, width: int, feature_width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.layout = (dim, width, feature_width, tuple(dilations))
        self.aspp = Aspp(dim, width, dilations)
        self.reduce = nn.Conv2d(BRANCHES * width, width, 1, bias=False)
        self.last = nn.Conv2d(width, feature_width, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, trunk: torch.Tensor) -> torch.Tensor:
        """Map the trunk (B, h, w, dim) to (B, width, h, w)."""
        # contiguous: as in the decoder, permuted inputs are not safe in every backward pass
        embedded: torch.Tensor = self.reduce(self.aspp(trunk.permute(0, 3, 1, 2).contiguous()))
        return embedded

    def copy_aspp(self, aspp: Aspp, reduce: nn.Conv2d) -> None:
        """Start from the host's own ASPP and 1x1, as the paper does where there is one."""
        self.aspp.load_state_dict(aspp.state_dict())
        self.reduce.load_state_dict(reduce.state_dict())


def deeplab_block(host: DeepLabHost) -> ResidualBlock:
    """Return the block for a DeepLabV3+, which starts from its ASPP and 1x1."""
    shape = host.shape
    block = ResidualBlock(shape.trunk, shape.width, host.feature_width, shape.dilations)
    block.copy_aspp(host.aspp, host.reduce)
    return block


def to_feature_grid(host: Host, maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """
    Upsample maps (B, C, h, w) bilinearly to (B, *size, C).

    A 1x1 convolution commutes with it (the weights of a pixel sum to 1), so what the paper
    convolves at the fine grid is convolved before it here: the same values, less work.
    """
    corners = host.align_corners
    fine = functional.interpolate(maps, tuple(size), mode='bilinear', align_corners=corners)
    return fine.permute(0, 2, 3, 1)


def save_block(path: Path, block: ResidualBlock) -> None:
    """Write a block with its layout."""
    save_network(path, block, 'rpl', block.layout)


def load_block(path: Path) -> ResidualBlock:
    """Read what save_block wrote; DataError where it is something else."""
    return load_network(path, 'rpl', lambda layout: ResidualBlock(*layout))
