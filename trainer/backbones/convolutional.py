# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Frozen convolutional backbones of inverted residuals, with ImageNet's weights.

MobileNetV2 (Sandler et al. 2018, table 2) and EfficientNet-Lite0 (Tan and Le 2019, table 1,
without squeeze-and-excitation, ReLU6 in the place of swish). Blocks behind the chosen stride are
dilated instead of striding. BatchNorm keeps ImageNet's statistics, while it is fine-tuned, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError

from .base import IMAGENET, MAPS, TOKENS, Backbone, BackboneChoice, Layer, parse_layer
from .weight_names import Array

STEM, EXPANSION = 32, 6
STRIDES = (8, 16, 32)
FIRST_STEPS = (1, 2, 2, 2, 1, 2, 1)
"""Strides of the stages' first blocks; the first stage does not expand, the others by 6."""


@dataclass(frozen=True)
class Network:
    """
    A network's sizes.

    channels, counts, kernels: of each stage; counts of blocks. epsilon: of BatchNorm.
    lead: whether strided convolutions start at the image's first pixel, as TensorFlow's do,
    instead of one before it. normalisation: mean and deviation in [0, 1] units.
    """

    channels: tuple[int, ...]
    counts: tuple[int, ...]
    kernels: tuple[int, ...]
    epsilon: float = 1e-5
    lead: bool = False
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


NETWORKS = {
    'mobilenet_v2': Network(
        channels=(16, 24, 32, 64, 96, 160, 320),
        counts=(1, 2, 3, 4, 3, 3, 1),
        kernels=(3, 3, 3, 3, 3, 3, 3),
    ),
    'efficientnet_lite0': Network(
        channels=(16, 24, 40, 80, 112, 192, 320),
        counts=(1, 2, 2, 3, 3, 4, 1),
        kernels=(3, 3, 5, 3, 5, 5, 3),
        epsilon=1e-3,
        lead=True,
        normalisation=((127 / 255,) * 3, (128 / 255,) * 3),
    ),
}


class ConvolutionalBackbone(Backbone):
    """
    A stack of inverted residuals; of each block 'tokens' (brought to the patch) or 'maps'.

    The patch is the stride of the last block, or a finer one that blocks before it have: coarser
    blocks are then enlarged to it, at a quarter of the cost of dilating them.
    """

    kinds = (TOKENS, MAPS)

    def __init__(self, choice: BackboneChoice) -> None:
        """Take choice.name, stride, mean and std; weights are random (torch's seed)."""
        network, stride = NETWORKS[choice.name], choice.stride
        patch = choice.patch or stride
        if stride not in STRIDES:
            raise ConfigError(
                f'backbone stride {stride}: choose one of {", ".join(map(str, STRIDES))}'
            )
        if patch not in STRIDES or patch > stride:
            raise ConfigError(f'backbone patch {patch}: choose one of {STRIDES} up to {stride}')
        model = InvertedResiduals(network, stride)
        mean, std = network.normalisation
        usual = choice.mean or mean, choice.std or std
        name = f'{choice.name}-s{stride}' + (f'-p{patch}' if patch < stride else '')
        super().__init__(model, name, patch, len(model.blocks), usual)

    def width(self, layer: Layer) -> int:
        """Return the channels of a layer, those of its block."""
        return self.model.widths[parse_layer(layer)[1]]

    def stride(self, layer: Layer) -> int:
        """Return the pixels per cell of a layer: the patch, or its block's own of 'maps'."""
        kind, block = parse_layer(layer)
        return min(self.model.strides[block], self.patch) if kind == MAPS else self.patch

    def _bake(self, height: int, width: int, layers: tuple[tuple[str, int], ...]) -> nn.Module:
        return BakedConvolutions(self, layers)

    def fill(self, tensors: dict[str, Array], place: object) -> dict[str, Array]:
        """
        Take the weights of a file, by name, or in their order where the names are another's.

        tensors: in the file's order; a classifier behind the blocks is left out. place: the file.
        Returns what was taken, by this module's names. Raises DataError for what does not fit.
        """
        own = {k: v for k, v in self.model.state_dict().items() if 'num_batches' not in k}
        if not own.keys() <= tensors.keys():
            given = [value for name, value in tensors.items() if 'num_batches' not in name]
            tensors = dict(zip(own, given, strict=False))
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        wrong = [n for n in own if n not in tensors or tensors[n].shape != shapes[n]]
        if wrong:
            raise DataError(
                f'{place} holds no weights of {self.name}: {len(wrong)} tensors are missing or of '
                f'another shape, such as {wrong[0]} {shapes[wrong[0]]}'
            )
        taken = {name: tensors[name] for name in own}
        state = {name: torch.tensor(value) for name, value in taken.items()}
        self.model.load_state_dict(state, strict=False)
        return taken


class BakedConvolutions(nn.Module):
    """The backbone up to the last chosen block: uint8 NHWC in, one map per layer out."""

    def __init__(
        self, backbone: ConvolutionalBackbone, layers: tuple[tuple[str, int], ...]
    ) -> None:
        super().__init__()
        self.wanted = layers
        self.patch, self.strides = backbone.patch, backbone.model.strides
        self.stem = backbone.model.stem
        last = max(block for _, block in layers)
        self.blocks = nn.ModuleList(list(backbone.model.blocks)[: last + 1])
        self.register_buffer('mean', backbone.mean.reshape(1, 3, 1, 1))
        self.register_buffer('scale', 1.0 / backbone.std.reshape(1, 3, 1, 1))
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map uint8 (B, h, w, 3) RGB to one float (B, rows, columns, C) per layer, in order."""
        values = self.stem((image.float().permute(0, 3, 1, 2) - self.mean) * self.scale)
        outputs = []
        for block in self.blocks:
            values = block(values)
            outputs.append(values)
        rows, columns = (side // self.patch for side in image.shape[1:3])
        maps = []
        for kind, block in self.wanted:
            stride, layer = self.strides[block], outputs[block]
            if stride > self.patch:
                layer = _enlarged(layer, stride // self.patch)[:, :, :rows, :columns]
            size = max(self.patch // stride, 1) if kind == TOKENS else 1
            # of 1, too: behind a pool OpenVINO keeps channels last, else it reorders every map
            maps.append(functional.avg_pool2d(layer, size).permute(0, 2, 3, 1))
        return tuple(maps)


def _enlarged(values: torch.Tensor, factor: int) -> torch.Tensor:
    """Interpolate (B, C, rows, columns); an odd grid's last row reaches over the finer one's."""
    size = [side * factor for side in values.shape[2:]]
    return functional.interpolate(values, size, mode='bilinear', align_corners=False)


class InvertedResiduals(nn.Module):
    """
    Stem and blocks of a network; widths, strides: channels and pixels per cell behind each block.

    stride: of the last block; from there on convolutions are dilated.
    """

    def __init__(self, network: Network, stride: int) -> None:
        super().__init__()
        self.stem = _Convolution(network, 3, STEM, 3, step=2)
        self.widths: list[int] = []
        self.strides: list[int] = []
        blocks: list[nn.Module] = []
        dim, reached, rate = STEM, 2, 1
        stages = zip(network.channels, network.counts, network.kernels, FIRST_STEPS, strict=True)
        for width, count, kernel, first in stages:
            for index in range(count):
                step = 1 if index else first
                dilated = step == 2 and reached == stride
                inner = dim * EXPANSION if blocks else dim
                reach = {'step': step, 'rate': rate, 'dilated': dilated}
                depthwise = _Convolution(network, inner, inner, kernel, groups=inner, **reach)
                blocks.append(_Block(network, dim, width, depthwise, step == 1 and dim == width))
                # the block that would have strode still sees the neighbours of before
                rate, reached = (rate * 2, reached) if dilated else (rate, reached * step)
                dim = width
                self.widths.append(dim)
                self.strides.append(reached)
        self.blocks = nn.ModuleList(blocks)


class _Block(nn.Module):
    """1x1 expansion, depthwise, linear 1x1, with a shortcut where sizes allow it."""

    def __init__(
        self, network: Network, dim: int, width: int, depthwise: _Convolution, shortcut: bool
    ) -> None:
        super().__init__()
        inner = depthwise.conv.in_channels
        self.expand = nn.Identity() if inner == dim else _Convolution(network, dim, inner, 1)
        self.depthwise = depthwise
        self.project = _Convolution(network, inner, width, 1, linear=True)
        self.shortcut = shortcut

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.project(self.depthwise(self.expand(values)))
        return values + result if self.shortcut else result


class _Convolution(nn.Module):
    """Convolution, BatchNorm of fixed statistics and, unless linear, ReLU6."""

    def __init__(
        self,
        network: Network,
        dim: int,
        width: int,
        kernel: int,
        *,
        step: int = 1,
        rate: int = 1,
        dilated: bool = False,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        stride = 1 if dilated else step
        before = rate * ((kernel - step) // 2 if network.lead else kernel // 2)
        after = rate * (kernel - 1) + 1 - stride - before if network.lead else before
        self.pad = (before, after, before, after) if before != after else ()
        padding = 0 if self.pad else before
        self.conv = nn.Conv2d(dim, width, kernel, stride, padding, rate, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, network.epsilon)
        self.linear = linear

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = functional.pad(values, self.pad) if self.pad else values
        norm, conv = self.norm, self.conv
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * gain
        if conv.weight.requires_grad:  # in training: the same, in two thirds of the time
            kernel = conv.weight * gain[:, None, None, None]
            where = conv.stride, conv.padding, conv.dilation, conv.groups
            values = functional.conv2d(values, kernel, shift, *where)
        else:  # spelt out: the exporter would fold BatchNorm into weights that no origin holds
            values = conv(values) * gain[:, None, None] + shift[:, None, None]
        return values if self.linear else functional.relu6(values)
