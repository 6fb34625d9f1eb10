# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Normalising flows that make images of any size, for synthetic negatives (NFlowJS).

Two of them, RealNVP-like and DenseFlow-25-6-like, with their options and files. Own code, because
none of the libraries fits: zuko knows vectors alone; normflows and FrEIA fix the image's size when
a flow is built and know neither a bounded log-scale nor noise between units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ood_perception.errors import ConfigError, check_choices, check_least

from ....artifacts import load_network, save_network
from .flow import COLOURS, STRIDE, CrossUnit, Flow, Scale, kept_channels
from .layers import DEQUANTISATIONS, Chain, DenseNet, dequantiser, glow_step, small_net

__all__ = ['KINDS', 'STRIDE', 'Flow', 'FlowConfig', 'build_flow', 'load_flow', 'save_flow']
KINDS = ('real_nvp', 'dense_flow')


@dataclass(frozen=True)
class FlowConfig:
    """
    How a flow is built and pre-trained (defaults: the `cpu` preset; DenseFlow-25-6 in brackets).

    kind: of KINDS. modules: in each unit of the three scales [3, 4, 8]. units: of each scale
        [3, 2, 1], of dense_flow alone. width: of the coupling networks [32].
    growth: noise channels between units [6]. depth, dense_growth: of dense coupling networks
        [7, 64]. dequantisation: of DEQUANTISATIONS [variational].
    steps, batch, crops, learning_rate, warmup: of maximum likelihood on crops of `side` pixels;
        batch images a step, `crops` of each. 0 steps: no pre-training.
    select_every: steps between looks at held-out crops; the best state is kept. pixel_step: 1, a
        flow reads every pixel.
    """

    kind: str = 'real_nvp'
    modules: tuple[int, ...] = (6, 6, 6)
    units: tuple[int, ...] = (3, 2, 1)
    width: int = 32
    growth: int = 6
    depth: int = 7
    dense_growth: int = 64
    dequantisation: str = 'uniform'
    steps: int = 2000
    batch: int = 4
    crops: int = 4
    side: int = 64
    learning_rate: float = 1e-3
    warmup: int = 50
    select_every: int = 500
    seed: int = 42
    pixel_step: int = 1

    def __post_init__(self) -> None:
        check_choices('flow', self, kind=KINDS, dequantisation=DEQUANTISATIONS)
        if len(self.modules) != 3 or len(self.units) != 3 or min(*self.modules, *self.units) < 1:
            raise ConfigError(
                f'flow modules {list(self.modules)}, units {list(self.units)}: give three numbers '
                'of at least 1, one a scale'
            )
        check_least('flow', self, 1, 'batch', 'crops', 'select_every', 'width')
        check_least('flow', self, 0, 'steps')
        if self.pixel_step != 1:
            raise ConfigError(f'flow pixel_step {self.pixel_step}: a flow reads every pixel, 1')
        if self.side % STRIDE or self.side < STRIDE:
            raise ConfigError(f'flow side {self.side}: give a multiple of {STRIDE}')


def build_flow(config: FlowConfig) -> Flow:
    """Return a flow with new weights, which follow from the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        make = _dense_scale if config.kind == 'dense_flow' else _real_nvp_scale
        scales: list[Scale] = []
        for index in range(3):
            inputs = kept_channels(scales[-1].out_channels) if scales else COLOURS
            scales.append(make(4 * inputs, index, config))
        return Flow(scales, dequantiser(config.dequantisation))


def _real_nvp_scale(channels: int, index: int, config: FlowConfig) -> Scale:
    """Return one unit of modules with small networks."""
    known = channels // 2
    steps = [
        glow_step(channels, small_net(known, 2 * (channels - known), config.width))
        for _ in range(config.modules[index])
    ]
    return Scale(channels, [Chain(steps)])


def _dense_scale(channels: int, index: int, config: FlowConfig) -> Scale:
    """Return units of modules with dense networks; noise behind every unit but the flow's last."""
    units, crossings, seen, width = [], [], 0, channels
    count = config.units[index]
    for unit in range(count):
        known = width // 2
        shape = known, 2 * (width - known), config.width, config.depth, config.dense_growth
        units.append(
            Chain([glow_step(width, DenseNet(*shape)) for _ in range(config.modules[index])])
        )
        seen += width
        if not (index == 2 and unit + 1 == count):
            crossings.append(CrossUnit(seen, config.growth))
            width += config.growth
    return Scale(channels, units, crossings)


def save_flow(path: Path, flow: Flow, config: FlowConfig) -> None:
    """Write a flow with its configuration."""
    save_network(path, flow, 'flow', asdict(config))


def load_flow(path: Path) -> Flow:
    """Read what save_flow wrote; DataError where it is something else."""

    def build(values: Any) -> Flow:
        lists = {name: tuple(values[name]) for name in ('modules', 'units')}
        return build_flow(FlowConfig(**{**values, **lists}))

    return load_network(path, 'flow', build)
