# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The closed-set segmenter on the frozen ViT: tokens of four layers -> decoder feature -> logits.

It serves every head that needs a decoder feature or closed-set logits (UEM, RPL, NFlowJS, the
baselines). The decoder is an FPN over four blocks (UEM, section 3) in two presets. `full`:
transposed convolutions bring the blocks to four scales, as in the paper. `light` (for a CPU): 1x1
reduction to the decoder's width first, then bilinear resizing: nothing wide at a fine scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ood_perception.errors import check_choices, check_least
from ood_perception.typed_values import build

from ..artifacts import load_network, save_network
from .gmm import GmmHead, GmmSettings
from .patch_classifier import MATMULS

PRESETS = ('light', 'full')
SCALES = (4.0, 2.0, 1.0, 0.5)
UPSAMPLING = 4
HEADS = ('linear', 'gmm')


class Decoder(nn.Module):
    """
    Token maps of four blocks to one feature map, four cells per patch along each axis.

    layers: token names, from the first block to the last. dim: width of the tokens, one for all
    or one each.
    width: of the feature. preset: 'light' or 'full'.
    """

    def __init__(
        self, layers: Sequence[str], dim: int | Sequence[int], width: int, preset: str = 'light'
    ) -> None:
        super().__init__()
        self.layers, self.width = tuple(layers), width
        if len(self.layers) != len(SCALES):
            raise ValueError(f'the decoder reads {len(SCALES)} layers, not {list(layers)}')
        level = _FullLevel if preset == 'full' else _LightLevel
        dims = [dim] * len(SCALES) if isinstance(dim, int) else dim
        sizes = zip(dims, SCALES, strict=True)
        self.levels = nn.ModuleList([level(one, width, scale) for one, scale in sizes])
        # UEM: the level at the patches' own scale also sees the last tokens through two layers
        self.last = _LastTokens(dims[-1], width) if preset == 'full' else None
        self.smooth = nn.ModuleList([_ConvBlock(width) for _ in SCALES])
        self.heads = nn.ModuleList([_UpHead(width, steps) for steps in range(len(SCALES))])

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to the decoder feature (B, width, 4 gh, 4 gw)."""
        # contiguous: the backward pass of torch's GroupNorm crashes on permuted inputs (2.13, CPU)
        planes = [layer.permute(0, 3, 1, 2).contiguous() for layer in tokens]
        maps = [level(plane) for level, plane in zip(self.levels, planes, strict=True)]
        if self.last is not None:
            maps[SCALES.index(1.0)] = maps[SCALES.index(1.0)] + self.last(planes[-1])
        for finer in reversed(range(len(maps) - 1)):  # top-down: each takes the coarser sum
            size = maps[finer].shape[2:]
            maps[finer] = maps[finer] + functional.interpolate(maps[finer + 1], size)
        size = maps[0].shape[2:]
        parts = [
            _resized(head(smooth(level)), size)
            for head, smooth, level in zip(self.heads, self.smooth, maps, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:  # a stack and its sum took a quarter of a training step
            total = total + part
        return total


class _LightLevel(nn.Module):
    """GroupNorm, 1x1 to the decoder's width, bilinear to the level's scale."""

    def __init__(self, dim: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.GroupNorm(1, dim)
        self.reduce = nn.Conv2d(dim, width, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(self.norm(tokens))
        if self.scale < 1:
            return functional.max_pool2d(reduced, 2, ceil_mode=True)
        if self.scale == 1:
            return reduced
        size = [int(side * self.scale) for side in reduced.shape[2:]]
        return functional.interpolate(reduced, size, mode='bilinear', align_corners=False)


class _FullLevel(nn.Module):
    """GroupNorm, transposed convolutions (or max-pooling) to the scale, 1x1 lateral."""

    def __init__(self, dim: int, width: int, scale: float) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.GroupNorm(1, dim)]
        if scale >= 2:
            steps.append(nn.ConvTranspose2d(dim, dim, 2, 2))
        if scale == 4:
            steps += [nn.BatchNorm2d(dim), nn.GELU(), nn.ConvTranspose2d(dim, dim, 2, 2)]
        if scale < 1:
            steps.append(nn.MaxPool2d(2, ceil_mode=True))
        self.steps = nn.Sequential(*steps, nn.Conv2d(dim, width, 1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.steps(tokens)


class _LastTokens(nn.Module):
    """
    The last tokens by a two-layer perceptron (UEM: 768-512-256), then into the decoder's width.

    UEM concatenates them with a block's tokens before the 1x1 lateral convolution: the sum of two
    lateral convolutions is the same function.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            *(nn.Conv2d(dim, 512, 1), nn.ReLU(), nn.Conv2d(512, 256, 1)),
            nn.Conv2d(256, width, 1, bias=False),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.steps(tokens)


class _ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.norm(self.conv(values)))

    def fold(self) -> None:
        """Put the norm, as it is applied when served, into the convolution's weights."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class _UpHead(nn.Module):
    """`steps` times: convolve, then double the size; none at all for the finest level."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_ConvBlock(width) for _ in range(steps)])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            values = block(values)
            size = [2 * side for side in values.shape[2:]]
            values = functional.interpolate(values, size, mode='bilinear', align_corners=False)
        return values


def _resized(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(values.shape[2:]) == tuple(size):
        return values
    return functional.interpolate(values, tuple(size), mode='bilinear', align_corners=False)


@dataclass(frozen=True)
class SegmenterConfig:
    """
    How the segmenter is built and trained (defaults: the `cpu` preset).

    head: 'linear' or 'gmm'. width: of the decoder feature. preset: of the decoder, see above.
    steps, batch: 6000 image-steps by default. warmup: steps of rising rate; then it falls
        linearly (UEM: polynomial of power 1 to 1e-7). pixel_step: every s-th row and column.
    matmul: 'f32' or 'bf16' arithmetic of the decoder. select_every: steps between measurements of
        mean IoU on the selection images; the best state is kept.
    on_the_fly: draw fresh views in every step and run the backbone on them (the `paper` preset,
        for a GPU), instead of the cached bank of views.
    """

    head: str = 'linear'
    width: int = 64
    preset: str = 'light'
    steps: int = 1500
    batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warmup: int = 50
    pixel_step: int = 2
    matmul: str = 'bf16'
    select_every: int = 250
    gmm: GmmSettings = field(default_factory=GmmSettings)
    on_the_fly: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('segmenter', self, head=HEADS, preset=PRESETS, matmul=MATMULS)
        counts = ('steps', 'batch', 'width', 'pixel_step', 'select_every')
        check_least('segmenter', self, 1, *counts)


class Segmenter(nn.Module):
    """
    Decoder and classifier.

    layers: token names in the order of forward's arguments. dim: their width, one for all or
    one each; trunk_width: of the last ones. feature_width: of what enters the classifier.
    upsampling: cells of the feature per patch along each axis. align_corners: of its bilinear
    upsampling.
    """

    align_corners, upsampling = False, UPSAMPLING

    def __init__(
        self,
        layers: Sequence[str],
        dim: int | Sequence[int],
        classes: int,
        config: SegmenterConfig,
    ):
        super().__init__()
        self.config, self.classes, self.dim = config, classes, dim
        self.layers, self.feature_width = tuple(layers), config.width
        self.trunk_width = dim if isinstance(dim, int) else dim[-1]
        self.decoder = Decoder(layers, dim, config.width, config.preset)
        self.classifier: nn.Module = (
            GmmHead(config.width, classes, config.gmm)
            if config.head == 'gmm'
            else nn.Linear(config.width, classes)
        )

    def feature(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to the decoder feature (B, 4 gh, 4 gw, width)."""
        return self.decoder(*tokens).permute(0, 2, 3, 1)

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to logits (B, 4 gh, 4 gw, C)."""
        return self.classifier(self.feature(*tokens).float())


def fold_norms(network: nn.Module) -> None:
    """Put batch norms into the convolutions before them, in place: a network that is served."""
    for block in network.modules():
        if isinstance(block, _ConvBlock):
            block.fold()


def save_segmenter(path: Path, segmenter: Segmenter) -> None:
    """Write a segmenter with its configuration."""
    values = {
        'layers': segmenter.layers,
        'dim': segmenter.dim,
        'classes': segmenter.classes,
        'config': asdict(segmenter.config),
    }
    save_network(path, segmenter, 'segmenter', values)


def load_segmenter(path: Path) -> Segmenter:
    """Read what save_segmenter wrote; DataError where it is something else."""

    def made(values: Any) -> Segmenter:
        config = build(SegmenterConfig, values.pop('config'), str(path))
        return Segmenter(**values, config=config)

    return load_network(path, 'segmenter', made)
