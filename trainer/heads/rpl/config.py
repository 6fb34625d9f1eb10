# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `rpl`."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices, check_least

from ...nets.deeplab import BRANCHES
from ...nets.patch_classifier import MATMULS

NETWORKS = ('segmenter', 'deeplab')
ENERGY_WEIGHT = 0.05
TEMPERATURE, SAMPLES = 0.1, 512
"""Of the contrast, see corocl."""


@dataclass(frozen=True)
class RplConfig:
    """
    How the block is built and trained (defaults: the `cpu` preset on cached mixes).

    network: the frozen closed-set network, of the section segmenter's width and schedule:
        'segmenter', or 'deeplab', a DeepLabV3+ on a convolutional backbone, from whose ASPP the
        block starts (of its width and dilations).
    width: of the block's branches. dilations: in cells of the trunk's grid, () = those that reach
        as far over the image as the paper's, see scaled_dilations.
    dissimilarity, contrast: the losses beside cross-entropy and energy. context: show whole
        everyday images to the contrast, context_batch of them in a step.
    energy_weight, contrast_weight, temperature, samples: see rpl_losses and corocl.
    steps, batch, learning_rate: Adam; polynomial of power 0.9, the last layer 10 times as fast.
    pixel_step: every s-th row and column of the labels. matmul: 'f32' or 'bf16' arithmetic while
        training. select_every: steps between looks at AP on the selection mixes; the best state is
        kept. on_the_fly: draw fresh mixes in every step, see SegmenterConfig.
    """

    network: str = 'segmenter'
    width: int = 128
    dilations: tuple[int, ...] = ()
    dissimilarity: bool = True
    contrast: bool = True
    context: bool = True
    energy_weight: float = ENERGY_WEIGHT
    contrast_weight: float = 1.0
    temperature: float = TEMPERATURE
    samples: int = SAMPLES
    steps: int = 1000
    batch: int = 4
    context_batch: int = 2
    learning_rate: float = 5e-4
    pixel_step: int = 3
    matmul: str = 'bf16'
    select_every: int = 100
    on_the_fly: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('rpl', self, network=NETWORKS, matmul=MATMULS)
        if self.dilations and (len(self.dilations) != BRANCHES - 2 or min(self.dilations) < 1):
            raise ConfigError(
                f'rpl dilations {list(self.dilations)}: give {BRANCHES - 2} of at least 1, or none'
            )
        counts = ('width', 'steps', 'pixel_step', 'select_every', 'context_batch', 'samples')
        check_least('rpl', self, 1, *counts)
        if self.batch < 2:
            raise ConfigError(
                f'rpl batch {self.batch}: give at least 2: its BatchNorm needs two images'
            )
        if self.temperature <= 0:
            raise ConfigError(f'rpl temperature {self.temperature:g}: give a value above 0')
