# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `nflowjs`; `flow` is in flow."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices, check_least

from ...nets.patch_classifier import MATMULS

NEGATIVES = ('flow', 'objects', 'none')
LOSSES = ('js', 'kl', 'reverse_kl')
SCORES = (*LOSSES, 'max_softmax')


@dataclass(frozen=True)
class NflowjsConfig:
    """
    How the segmenter is trained on, and what is served (defaults: the `cpu` preset).

    negatives: 'flow'; for ablations pasted 'objects' of the outlier sources, or 'none'.
    loss: divergence from uniform on negatives, one of LOSSES; weight: its lambda. The
        temperature in the loss is 1.
    score: what is served, one of SCORES, at `temperature` (2 for divergences, 10 for max-softmax).
    smallest, largest: sides of a patch in pixels where the crop's shorter side is `reference`; in
        proportion otherwise, see patch_sides.
    crop: height and width of what is cut out of an image at network magnification, multiples of
        the backbone's patch. scale: least and greatest further magnification.
    steps, batch, warmup, learning_rate: Adam, linear warm-up, then linearly to 0 (`cosine`: along
        a cosine, as published). flow_rate: of the flow. backbone_rate: of the backbone; 0 =
        frozen, the gradient still passes through it.
    pixel_step: every s-th row and column of the labels. matmul: 'f32' or 'bf16' arithmetic of
        backbone and decoder. select_every: steps between looks at AP of the score on the selection
        mixes; the best state is kept. device: see OnlineSettings.
    """

    negatives: str = 'flow'
    loss: str = 'js'
    weight: float = 0.03
    score: str = 'js'
    temperature: float = 2.0
    smallest: int = 16
    largest: int = 216
    reference: int = 768
    crop: tuple[int, int] = (252, 336)
    scale: tuple[float, float] = (0.75, 1.5)
    steps: int = 1000
    batch: int = 2
    warmup: int = 50
    cosine: bool = False
    learning_rate: float = 1e-4
    flow_rate: float = 1e-5
    backbone_rate: float = 0.0
    pixel_step: int = 2
    matmul: str = 'bf16'
    select_every: int = 250
    device: str = 'auto'
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('nflowjs', self, negatives=NEGATIVES, loss=LOSSES)
        check_choices('nflowjs', self, score=SCORES, matmul=MATMULS)
        check_least('nflowjs', self, 1, 'steps', 'batch', 'pixel_step', 'select_every')
        if min(self.crop) < 1:
            raise ConfigError(f'nflowjs crop {self.crop}: give sides of at least 1')
        if not 0 < self.smallest <= self.largest <= self.reference:
            raise ConfigError(
                f'nflowjs patches from {self.smallest} to {self.largest} at {self.reference}: '
                'give them in this order, above 0'
            )
        if self.temperature <= 0 or min(self.weight, self.flow_rate, self.backbone_rate) < 0:
            raise ConfigError(
                f'nflowjs temperature {self.temperature:g} must be above 0, weight and rates '
                'not below'
            )
