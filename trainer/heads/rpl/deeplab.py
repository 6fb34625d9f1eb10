# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL's closed-set network as in the paper: a DeepLabV3+, on a convolutional backbone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ood_perception.errors import ConfigError

from ...artifacts import load_network, save_network
from ...backbones.base import MAPS, TOKENS, Backbone
from ...nets.deeplab import DeepLabHost, DeepLabShape, scaled_dilations
from ..on_segmenter import ClosedSet

FINE_STRIDE = 4


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
    """A DeepLabV3+ in the place of the segmenter, trained on the same pictures by its schedule."""

    def new(self) -> DeepLabHost:
        """Return a network with random weights, its dilations scaled to the picture."""
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
