# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL's residual block and the frozen networks that it sits on: a segmenter, or a DeepLabV3+."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError

from ...artifacts import load_network, save_network
from ...backbones.base import MAPS, TOKENS, Backbone
from ...nets.deeplab import BRANCHES, Aspp, DeepLabHost, DeepLabShape, scaled_dilations
from ..on_segmenter import ClosedSet

FINE_STRIDE = 4


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
        return self.reduce(self.aspp(trunk.permute(0, 3, 1, 2).contiguous()))


def deeplab_block(host: DeepLabHost) -> ResidualBlock:
    """Return the block for a DeepLabV3+, which starts from its ASPP and 1x1, as in the paper."""
    shape = host.shape
    block = ResidualBlock(shape.trunk, shape.width, host.feature_width, shape.dilations)
    block.aspp.load_state_dict(host.aspp.state_dict())
    block.reduce.load_state_dict(host.reduce.state_dict())
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


def deeplab_layers(backbone: Backbone) -> tuple[str, str]:
    """Return the names of the last map of stride 4 and of the trunk's last; ConfigError."""
    if MAPS in backbone.kinds:
        names = [f'{MAPS}_{block}' for block in range(backbone.depth)]
        fine = [name for name in names if backbone.stride(name) == FINE_STRIDE]
        return fine[-1], f'{TOKENS}_{backbone.depth - 1}'
    raise ConfigError(
        f'rpl.network deeplab reads a map of stride {FINE_STRIDE}, which {backbone.name} has not: '
        'choose a convolutional backbone.name such as mobilenet_v2, or rpl.network segmenter'
    )


class DeepLabClosedSet(ClosedSet):
    """A DeepLabV3+ in the place of the segmenter, trained on the same images by its schedule."""

    def new(self) -> DeepLabHost:
        """Return a network with random weights, its dilations scaled to the image."""
        backbone, rows = self.data.backbone, self.data.view.size[0] // self.data.backbone.patch
        fine, trunk = self.layers
        shape = DeepLabShape(
            trunk=backbone.width(trunk),
            fine=backbone.width(fine),
            upsampling=backbone.patch // FINE_STRIDE,
            classes=len(self.data.class_names),
            width=self.config.width,
            dilations=scaled_dilations(rows),
            layers=(fine, trunk),
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return DeepLabHost(shape)

    def save(self, path: Path, network: DeepLabHost) -> None:
        """Write a network; see save_network."""
        save_network(path, network, 'deeplab', asdict(network.shape))

    def read(self, path: Path) -> DeepLabHost:
        """Read what save wrote."""

        def build(values: dict[str, Any]) -> DeepLabHost:
            lists = {name: tuple(values[name]) for name in ('dilations', 'layers')}
            return DeepLabHost(DeepLabShape(**{**values, **lists}))

        return load_network(path, 'deeplab', build)
